"""Votes: appended to votes.jsonl one by one, each of them on the disk before the next question is shown."""

import hashlib
import json
import os
import random
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from inference.compare.plan import Plan, Question

FILE = "votes.jsonl"
ASPECTS = {"alignment": "Which picture fits the prompt better?", "looks": "Which picture looks better?"}
CHOICES = ("A", "B", "tie")
LONGEST_NAME = 60


class Vote(NamedTuple):
    """One person's word on one aspect of one question; is_swapped: whether B was shown on the left."""

    voter: str
    question: int
    aspect: str
    choice: str
    is_swapped: bool


class Ballot:
    """The votes of a comparison. A later vote of the same person on the same thing takes the place of the
    earlier one; nothing is ever removed from the file."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.path, self.plan = folder / FILE, plan
        self._lock = threading.Lock()

    def add(self, vote: Vote) -> None:
        """Append a vote. Raises ValueError for one that is none, OSError when it cannot be written."""
        if not _is_vote(vote, len(self.plan.questions)):
            raise ValueError(f"not a vote of this comparison: {vote}")
        record = vote._asdict() | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with self._lock, self.path.open("ab") as file:
            if file.tell() and not _ends_whole(self.path):
                line = b"\n" + line  # what a killed process left half-written must not spoil this one
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def votes(self) -> list[Vote]:
        """The votes that count; lines that are none are passed over."""
        newest: dict[tuple[str, int, str], Vote] = {}
        try:
            lines = self.path.read_bytes().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            if (vote := _parsed(line, len(self.plan.questions))) is not None:
                newest[vote.voter, vote.question, vote.aspect] = vote
        return list(newest.values())

    def of(self, voter: str) -> dict[int, dict[str, str]]:
        """What somebody has said: question number -> aspect -> choice."""
        said: dict[int, dict[str, str]] = {}
        for vote in self.votes():
            if vote.voter == voter:
                said.setdefault(vote.question, {})[vote.aspect] = vote.choice
        return said


def order(plan: Plan, voter: str) -> list[Question]:
    """The questions in this voter's own order, always the same."""
    questions = list(plan.questions)
    _chance(plan, voter, "order").shuffle(questions)
    return questions


def is_swapped(plan: Plan, voter: str, question: Question) -> bool:
    """Whether this voter sees B on the left."""
    return _chance(plan, voter, f"side/{question.number}").random() < 0.5


def chosen(side: str, swapped: bool) -> str:
    """left, right or tie, as A, B or tie."""
    if side == "tie":
        return "tie"
    return "A" if (side == "left") != swapped else "B"


def name_of(text: str) -> str:
    """A voter's name as it is kept: without what is around it, or cannot be printed. Empty for no name."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable())[:LONGEST_NAME]


def missing_pictures(plan: Plan, folder: Path) -> list[Question]:
    """Questions of which a picture is not there."""
    return [q for q in plan.questions if not all(plan.picture(folder, s, q).is_file() for s in ("A", "B"))]


def _chance(plan: Plan, *words: str) -> random.Random:
    text = json.dumps([plan.seed, *words])
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _parsed(line: str, count: int) -> Vote | None:
    try:
        record: Any = json.loads(line)
        vote = Vote(*(record[name] for name in Vote._fields))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return vote if _is_vote(vote, count) else None


def _is_vote(vote: Vote, count: int) -> bool:
    kinds: Sequence[tuple[Any, type]] = ((vote.voter, str), (vote.question, int), (vote.is_swapped, bool))
    return (
        all(isinstance(value, kind) for value, kind in kinds)
        and bool(vote.voter)
        and 0 <= vote.question < count
        and vote.aspect in ASPECTS
        and vote.choice in CHOICES
    )
