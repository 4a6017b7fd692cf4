"""Ends a run in good order when the machine (SLURM, a cloud) or the user asks for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from train.parallel import ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether somebody asked this process to end."""

    def __init__(self) -> None:
        self.is_made = False

    def of_any(self, world_size: int) -> bool:
        """Whether any process was asked; the same answer on all ranks, which must all call."""
        if world_size == 1:
            return self.is_made
        return bool(ranks.total(torch.tensor(int(self.is_made))))


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note the first SIGTERM or SIGINT instead of dying of it; the second one acts as usual."""
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        request.is_made = True
        signal.signal(number, before[signal.Signals(number)])

    try:
        for number in SIGNALS:
            signal.signal(number, note)
    except ValueError:  # not the main thread: the caller handles signals
        yield request
        return
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
