"""The questions of a comparison and its folder: comparison.json, a/, b/, votes.jsonl."""

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from inference.prompt_files import PromptLine
from modules.schema import ConfigError, one_line
from modules.whole_files import write_whole

FILE, VERSION = "comparison.json", 1


class Question(NamedTuple):
    """Two pictures of one prompt and seed. number: from 0, as their files are called."""

    number: int
    prompt: str
    category: str
    seed: int

    @property
    def file(self) -> str:
        """The same on both sides."""
        return f"{self.number:05d}.png"


@dataclass(frozen=True)
class Plan:
    """What is compared. sides: as they were typed; seed: of the pictures, of the choice and the blinding."""

    sides: tuple[str, str]
    seed: int
    questions: tuple[Question, ...]

    def picture(self, folder: Path, side: str, question: Question) -> Path:
        """Where a side's picture lies. side: A or B."""
        return folder / side.lower() / question.file


def choose(lines: Sequence[PromptLine], num: int | None, seed: int) -> list[PromptLine]:
    """`num` of the prompts, drawn as evenly from the categories as they allow, in the file's order."""
    if num is None or num >= len(lines):
        return list(lines)
    rng, of_category = random.Random(seed), defaultdict(list)
    for line in lines:
        of_category[category_of(line)].append(line)
    for group in of_category.values():
        rng.shuffle(group)
    chosen: list[PromptLine] = []
    while len(chosen) < num:
        turn = [group.pop() for group in of_category.values() if group]
        rng.shuffle(turn)
        chosen += turn[: num - len(chosen)]
    return sorted(chosen, key=lambda line: line.line)


def category_of(line: PromptLine) -> str:
    """What the column `category` says, in any case of its name; empty where there is none."""
    return next((str(v) for name, v in line.fields.items() if name.lower() == "category"), "")


def make_plan(sides: tuple[str, str], lines: Sequence[PromptLine], images: int, seed: int) -> Plan:
    """`images` pictures of each prompt, with seeds that count up from `seed`."""
    pairs = [(line, seed + i) for line in lines for i in range(images)]
    questions = [Question(n, line.prompt, category_of(line), s) for n, (line, s) in enumerate(pairs)]
    return Plan(sides, seed, tuple(questions))


def write_plan(folder: Path, plan: Plan) -> None:
    """Write comparison.json, or go on with the same one. Raises ConfigError when another one is there."""
    path = folder / FILE
    if path.exists():
        if read_plan(folder) != plan:
            raise ConfigError(f"output: {folder} holds another comparison; name another folder, or remove it")
        return
    plain = {"version": VERSION, **asdict(plan), "questions": [q._asdict() for q in plan.questions]}
    write_whole(path, json.dumps(plain, indent=1, ensure_ascii=False))


def read_plan(folder: Path) -> Plan:
    """The comparison in a folder. Raises FileNotFoundError, or ConfigError for a damaged one."""
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no comparison there ({FILE}); make one: A B prompts=FILE")
    try:
        plain: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        questions = tuple(
            Question(int(q["number"]), str(q["prompt"]), str(q["category"]), int(q["seed"]))
            for q in plain["questions"]
        )
        a, b = map(str, plain["sides"])
        return Plan((a, b), int(plain["seed"]), questions)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: damaged ({one_line(error)})") from None
