"""One line that says how the run goes: step, loss, samples per second, time left."""

import sys
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """A live line on a terminal; elsewhere (a log file) a plain line at every report."""

    def __init__(
        self,
        name: str,
        num_steps: int,
        start: int,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.num_steps, self.start = name, num_steps, start
        self.out, self.clock = out or sys.stderr, clock
        self.began = clock()
        self.is_live = self.out.isatty()

    def report(self, step: int, loss: float, samples_per_second: float) -> None:
        """Show the state after `step` steps."""
        left = (self.clock() - self.began) / max(1, step - self.start) * (self.num_steps - step)
        line = (
            f"{self.name}  step {step}/{self.num_steps}  loss {loss:.4f}"
            f"  {samples_per_second:.1f} samples/s  {duration(left)} left"
        )
        self.out.write(f"\r\x1b[K{line}" if self.is_live else f"{line}\n")
        self.out.flush()

    def note(self, text: str) -> None:
        """A line that stays, above the live one."""
        self.out.write(f"\r\x1b[K{text}\n" if self.is_live else f"{text}\n")
        self.out.flush()

    def close(self) -> None:
        """Leave the live line as it is and begin a new one."""
        if self.is_live:
            self.out.write("\n")


def duration(seconds: float) -> str:
    """Seconds as 4 s, 3 min 20 s, 5 h 07 min or 2 d 03 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
