"""What the lines of a file of prompts ask for: requests, each with the name of its file."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import yaml

from inference.config import Config, plan
from inference.pictures import slug
from inference.prompt_files import PromptLine
from inference.settings import Request
from modules.schema import from_plain, nearest, one_line

TEXTS = {"negative_prompt", "image", "mask", "task"}  # stay as they are typed in a table
SETTINGS = {entry.name for entry in fields(Request)} - {"prompt"} | {"num_images"}
NOTES = {"category", "challenge", "note", "id"}  # the columns of PartiPrompts; the manifest has them too
FIRST_SEED = 0  # where none is given: the same for all processes, and when the command is repeated


@dataclass(frozen=True)
class Planned:
    """A picture that a line asks for: its request, the file it goes to, and what the line notes."""

    line: int
    file: str
    request: Request
    notes: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """Why a line's pictures, or one of them, cannot be had."""

    line: int
    message: str


def plan_lines(config: Config, lines: Iterable[PromptLine]) -> tuple[list[Planned], list[Problem]]:
    """All pictures that the lines ask for, in order, and the lines that cannot be understood.

    config: the settings of lines that do not say otherwise. File names come from line, prompt and seed alone.
    """
    planned: list[Planned] = []
    problems = []
    for line in lines:
        try:
            planned += of_line(config, line)
        except ValueError as error:
            problems.append(Problem(line.line, one_line(error)))
    return planned, problems


def of_line(config: Config, line: PromptLine) -> list[Planned]:
    """The pictures of one line. Raises ValueError for settings that it cannot have."""
    if line.problem is not None:
        raise ValueError(line.problem)
    notes = {name: value for name, value in line.fields.items() if name.lower() in NOTES}
    given = {name: value for name, value in line.fields.items() if name not in notes}
    own = with_fields(config, line.prompt, given)
    names = Counter[str]()
    pictures = []
    for request in plan(own, FIRST_SEED):
        name = f"{line.line:06d}_{slug(request.prompt)}_{request.seed}"
        names[name] += 1
        number = "" if names[name] == 1 else f"_{names[name]}"  # several images with one seed
        pictures.append(Planned(line.line, f"{name}{number}.png", request, notes))
    return pictures


def with_fields(config: Config, prompt: str, given: dict[str, Any]) -> Config:
    """The settings with those of a line in their place; `stage_c.steps` is an entry of `stage_c`."""
    if not given:
        return replace(config, prompts_file=None, prompt=prompt)
    plain = asdict(config) | {"prompts_file": None, "prompt": prompt}
    for name, value in given.items():
        outer, _, inner = name.partition(".")
        if outer not in SETTINGS:
            raise ValueError(f"{name}: no setting of a line; {nearest(outer, SETTINGS)}")
        value = typed(name, value)
        if inner:
            value = {inner: value}
        together = isinstance(value, dict) and isinstance(plain[outer], dict)
        plain[outer] = plain[outer] | value if together else value
    return from_plain(Config, plain)


def typed(name: str, value: Any) -> Any:
    """The value of a table's cell, read as YAML; texts, and what is no text, are left as they are."""
    if not isinstance(value, str) or name in TEXTS:
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"{name}: cannot be read: {value!r}") from None
