"""What a visitor is told while a wish is being fulfilled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Waiting:
    """In the queue: this many wishes come before."""

    before: int


@dataclass(frozen=True)
class Reading:
    """The networks are read from their files."""


@dataclass(frozen=True)
class Drawing:
    """A sampling step is done.

    step: from 1, 0 before the first. share: of all the work, 0 to 1. seconds_left: None while unknown.
    preview: a JPEG of what Stage C has drawn so far; None where there is no newer one.
    """

    stage: str
    step: int
    steps: int
    share: float
    seconds_left: float | None
    preview: bytes | None


@dataclass(frozen=True)
class Done:
    """The pictures, as files; or the answer to a question."""

    paths: tuple[Path, ...] = ()
    answer: Any = None


Event = Waiting | Reading | Drawing | Done
