"""What the device gets of a batch."""

from types import SimpleNamespace
from typing import cast

import torch

from dataset_tools.batches import Batch
from dataset_tools.stream import Stream
from train.feed import Feed, _together, placed
from train.parallel.world import World


def test_pictures_and_their_controls_are_laid_out_as_the_networks_are() -> None:
    images, control = (torch.zeros(2, c, 8, 8, dtype=torch.uint8) for c in (3, 4))
    batch = Batch(images=images, control=control, captions=["a", "b"], keys=["0", "1"])
    found = placed(batch, torch.device("meta"), channels_last=True)
    for pictures in (found["images"], found["control"]):
        assert pictures.device.type == "meta"
        assert pictures.is_contiguous(memory_format=torch.channels_last)
    assert found["captions"] == ["a", "b"]


def test_a_step_of_borrowed_pictures_alone_counts_nothing() -> None:
    """So it comes about where storage fails one rank after another has read."""
    batch = Batch(images=torch.zeros(1, 3, 8, 8, dtype=torch.uint8), captions=["a"], keys=["0"], share=0.0)
    world = cast(World, SimpleNamespace(size=1, rank=0))
    stream = cast(Stream, SimpleNamespace(has_ended=False))
    found = _together(Feed([batch], 0.0, 0, is_last=False), stream, world)
    assert found is not None and [each["share"] for each in found.batches] == [0.0]
