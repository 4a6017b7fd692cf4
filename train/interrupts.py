"""Ends a run in good order when the machine (SLURM, a cloud) or the user asks for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from train.parallel import ranks

# What clouds and torchrun send, what Ctrl-C does, and what SLURM is told to send ahead of the end.
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")  # the last is not on Windows
SIGNALS = tuple(signal.Signals[name] for name in NAMES if hasattr(signal, name))


class StopRequest:
    """Whether somebody asked this process to end."""

    def __init__(self) -> None:
        self.is_made = False

    def of_any(self, world_size: int) -> bool:
        """Whether any process was asked; the same answer on all ranks, which must all call."""
        if world_size == 1:
            return self.is_made
        return bool(ranks.total(torch.tensor(int(self.is_made))))


_current: StopRequest | None = None  # one for the process, as its signals


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note the first signal of each kind instead of dying of it; the second one acts as usual.

    Within such a context another one gives the same request.
    """
    global _current
    if _current is not None:
        yield _current
        return
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
    _current = request
    try:
        yield request
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler)


def how_to_go_on(step: int) -> str:
    """What to say when a run was asked to end and has saved itself after `step` steps."""
    if step == 0:
        return "asked to end before the first step: nothing to save; the same command starts again"
    return f"asked to end: saved after step {step}; the same command goes on from there"
