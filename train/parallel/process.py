"""Processes of a machine, told apart for certain, dead or alive."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """The process of a rank."""

    rank: int
    host: str
    machine: str  # the same for processes that see each other's numbers
    number: int
    started: str  # numbers are given out again; empty where there is no /proc

    @classmethod
    def own(cls, rank: int) -> "Process":
        """This process."""
        return cls(rank, socket.gethostname(), own_machine(), os.getpid(), look_up(os.getpid())[1])

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"

    def is_gone(self) -> bool:
        """Whether the process ended; to be asked on its own machine. Unknown (False) without /proc."""
        state, started = look_up(self.number)
        return bool(self.started) and (state in ("", "Z", "X") or started != self.started)


def look_up(number: int) -> tuple[str, str]:
    """State (a letter) and start of a process; empty if it is not there."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    values = text.rpartition(")")[2].split()  # the name before it may hold anything
    return values[0], values[19]


def own_machine() -> str:
    """A name for this machine, and for the container in it that has process numbers of its own."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{booted}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
