"""What is going on while pictures are made: a callback per sampling step, and the bar that listens to it."""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor


class Step(NamedTuple):
    """One sampling step that is done: which (from 1), of how many, and the clean latents predicted there."""

    stage: str
    step: int
    steps: int
    latents: Tensor


OnStep = Callable[[Step], None]


def ignore(step: Step) -> None:
    """Listen to the steps and do nothing."""


class ProgressBar:
    """A bar over all sampling steps of a number of batches; on standard error, and only on a terminal.

    hidden: of all processes that share a terminal one shows its bar.
    """

    def __init__(self, num_batches: int, hidden: bool = False) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = Progress(
            *columns,
            *times,
            console=console,
            disable=hidden or not console.is_terminal,
            redirect_stdout=False,
        )
        self.num_batches = num_batches
        self.steps_of: dict[str, int] = {}
        self.task = self.bar.add_task("loading", total=None)

    def __enter__(self) -> "ProgressBar":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, step: Step) -> None:
        """Move on by one step. A stage that was not seen before makes the whole longer."""
        self.steps_of[step.stage] = step.steps
        total = self.num_batches * sum(self.steps_of.values())
        self.bar.update(self.task, advance=1, total=total, description=step.stage)

    def print(self, line: str) -> None:
        """A line on standard output; above the bar where both are shown."""
        if self.bar.disable or not sys.stdout.isatty():
            print(line, flush=True)
        else:
            self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
