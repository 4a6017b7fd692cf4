"""What a process that may be killed is doing, in memory that outlives it; it can also kill itself there."""

import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from train.hooks import Hook, StepDone
from train.session import Session

PHASES = ("starting", "building", "first step", "step", "report", "sheet", "save", "ending")
OPERATIONS = {"os.rename": "rename", "os.remove": "remove", "os.rmdir": "remove", "os.mkdir": "mkdir",
              "os.link": "link", "open": "open"}  # fmt: skip
NAMES = {"Report": "report", "Sheets": "sheet", "Save": "save"}
ENTRY = struct.Struct("<4i")


class Board:
    """phase, number of file operations so far, steps done; shared with the processes forked afterwards."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ENTRY.size)
        self._write()

    def _write(self, phase: int = 0, operations: int = 0, step: int = -1, last: int = -1) -> None:
        ENTRY.pack_into(self._memory, 0, phase, operations, step, last)

    def note(self, phase: str | None = None, operation: str | None = None, step: int | None = None) -> None:
        """Change what is given."""
        was_phase, operations, was_step, last = ENTRY.unpack_from(self._memory)
        if operation is not None:
            operations, last = operations + 1, list(OPERATIONS).index(operation)
        self._write(
            was_phase if phase is None else PHASES.index(phase),
            operations,
            was_step if step is None else step,
            last,
        )

    @property
    def phase(self) -> str:
        return PHASES[ENTRY.unpack_from(self._memory)[0]]

    @property
    def operations(self) -> int:
        return ENTRY.unpack_from(self._memory)[1]

    @property
    def operation(self) -> str:
        """The file operation that was begun last."""
        return list(OPERATIONS.values())[ENTRY.unpack_from(self._memory)[3]]


def watch_files(board: Board, folder: Path, kill_at: int | None) -> None:
    """Count the changes of files below `folder` from now on; die just before the one numbered `kill_at`."""
    inside = str(folder)

    def audit(event: str, arguments: Sequence[Any]) -> None:
        if event in OPERATIONS and is_change(event, arguments, inside):
            board.note(operation=event)
            if board.operations == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


def is_change(event: str, arguments: Sequence[Any], inside: str) -> bool:
    """Whether an audited operation changes something below the folder."""
    path = arguments[0]
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return False
    if not isinstance(path, str | os.PathLike):
        return False
    by_descriptor = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # as shutil.rmtree does
    return by_descriptor or os.fspath(path).startswith(inside)


def watch_session(board: Board, session: Session) -> None:
    """Note the phases of a run."""
    board.note("step" if session.state.counters.step else "first step", step=session.state.counters.step)

    def watched(hook: Hook) -> Callable[[StepDone], None]:
        def call(done: StepDone) -> None:
            board.note(NAMES[type(hook).__name__], step=done.step)
            hook(done)
            board.note("step")

        return call

    session.hooks = [watched(hook) for hook in session.hooks]
