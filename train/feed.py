"""The step's micro-batches, on the device, with the time that was spent waiting for them."""

import itertools
import time
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch

from dataset_tools.batches import Batch
from dataset_tools.stream import Stream


class Feed(NamedTuple):
    """What one step learns from."""

    batches: list[Batch]  # one per micro-batch; pictures uint8 [B, c, H, W] on the device
    seconds: float  # spent waiting for it

    @property
    def num_pictures(self) -> int:
        """How many pictures this rank has in the step."""
        return sum(len(batch["captions"]) for batch in self.batches)


def feeds(
    stream: Stream, num_accum: int, device: torch.device, channels_last: bool, repeat_batch: bool
) -> Iterator[Feed]:
    """For ever: the next micro-batches of the stream (or the first one again and again)."""
    batches: Iterator[Batch] = iter(stream)
    if repeat_batch:
        batches = itertools.repeat(next(batches))
    while True:
        began = time.monotonic()
        micro = [next(batches) for _ in range(num_accum)]
        waited = time.monotonic() - began
        yield Feed([placed(batch, device, channels_last) for batch in micro], waited)


def placed(batch: Batch, device: torch.device, channels_last: bool = False) -> Batch:
    """The batch with its pictures on the device, in the memory layout that the networks have."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pictures = {
        name: value.to(device, non_blocking=True, memory_format=layout)
        for name, value in batch.items()
        if isinstance(value, torch.Tensor)
    }
    return cast(Batch, {**batch, **pictures})
