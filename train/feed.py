"""The step's micro-batches, on the device, with the time that was spent waiting for them."""

import itertools
import time
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch

from dataset_tools.batches import Batch
from dataset_tools.stream import Stream
from modules.devices import copies_beside
from train.parallel import ranks
from train.parallel.world import World
from train.pictures import num_counted


class Feed(NamedTuple):
    """What one step learns from."""

    batches: list[Batch]  # one per micro-batch; pictures uint8 [B, c, H, W] on the device
    seconds: float  # spent waiting for it
    num_pictures: int  # of all ranks
    is_last: bool  # no rank has anything after it


def feeds(
    stream: Stream, num_accum: int, world: World, channels_last: bool, repeat_batch: bool
) -> Iterator[Feed]:
    """The next micro-batches of the stream (or the first one again and again), to its end if it has one."""
    batches: Iterator[Batch] = iter(stream)
    if repeat_batch:
        batches = itertools.repeat(_first(stream, batches))
    is_exact = stream.is_exact and not repeat_batch
    while True:
        began = time.monotonic()
        micro = list(itertools.islice(batches, num_accum))
        waited = time.monotonic() - began
        own = Feed(micro, waited, _num_rows(micro) * world.size, is_last=False)
        feed = _together(own, stream, world) if is_exact else own
        if feed is None:
            return
        yield feed._replace(batches=[placed(batch, world.device, channels_last) for batch in feed.batches])


def _first(stream: Stream, batches: Iterator[Batch]) -> Batch:
    """The next batch of the stream, which stays where it was: a run that goes on finds the same one there."""
    before = stream.state_dict()
    batch = next(batches)
    stream.load_state_dict(before | {"left_out": stream.state_dict()["left_out"]})
    return {**batch, "share": 1.0}


def _together(feed: Feed, stream: Stream, world: World) -> Feed | None:
    """The same number of micro-batches on all ranks, with their shares; None when no rank has any left.

    In exact epochs ranks may differ in how many pictures, micro-batches and steps they have: by a short batch
    at an epoch's end, by broken pictures, by their shards. A rank that lacks one takes part with a borrowed
    batch whose share is 0. A share is own pictures · world size · micro-batches / all pictures of the step;
    with it the mean of the losses over ranks and micro-batches is the mean over the step's pictures.
    """
    own = torch.zeros(world.size, 3, dtype=torch.long)  # a row for each rank
    has_ended = stream.has_ended or not feed.batches
    own[world.rank] = torch.tensor([_num_rows(feed.batches), len(feed.batches), has_ended])
    of_ranks = ranks.total(own)
    num_pictures, num_micro = int(of_ranks[:, 0].sum()), int(of_ranks[:, 1].max())
    if num_micro == 0:
        return None
    batches = list(feed.batches)
    if len(batches) < num_micro:
        spare = {**(batches[-1] if batches else stream.any_batch()), "share": 0.0}
        batches += [cast(Batch, spare)] * (num_micro - len(batches))
    weight = world.size * num_micro / max(num_pictures, 1)  # all may have borrowed when storage fails
    shared = [cast(Batch, {**batch, "share": _num_rows([batch]) * weight}) for batch in batches]
    return Feed(shared, feed.seconds, num_pictures, is_last=bool(of_ranks[:, 2].all()))


def _num_rows(batches: list[Batch]) -> int:
    return sum(map(num_counted, batches))


def placed(batch: Batch, device: torch.device, channels_last: bool = False) -> Batch:
    """The batch with its pictures on the device, in the memory layout that the networks have."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pictures = {
        name: value.to(device, non_blocking=copies_beside(device), memory_format=layout)
        for name, value in batch.items()
        if isinstance(value, torch.Tensor)
    }
    return cast(Batch, {**batch, **pictures})
