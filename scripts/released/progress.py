"""How far a file is: a bar with rate and time left on a terminal, else nothing until it is done."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Bar:
    """Told of bytes as they come; `seconds` says how long it took."""

    def __init__(self, label: str, size: int) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        rates = (TransferSpeedColumn(), TimeRemainingColumn())
        self.bar = Progress(
            *columns, *rates, console=console, disable=not console.is_terminal, transient=True
        )
        self.task = self.bar.add_task(label, total=size)
        self.began = self.seconds = time.monotonic()

    def __enter__(self) -> "Bar":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        self.seconds = time.monotonic() - self.began

    def __call__(self, count: int) -> None:
        """So many bytes more, or fewer."""
        self.bar.update(self.task, advance=count)
