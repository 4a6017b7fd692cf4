"""What the device gets of a batch."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dataset_tools.batches import Batch, Item
from dataset_tools.stream import Stream, pinning
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


class Copies(TorchDispatchMode):
    """Notes, of every copy to another device, whether the caller waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default:
            self.waits.append(not kwargs.get("non_blocking", False))
        return func(*args, **(kwargs or {}))


def latents_and_pictures() -> Batch:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8)
    return Batch(images=images, latents=torch.ones(2, 16, 4, 4), captions=["a", "b"], keys=["0", "1"])


@pytest.mark.parametrize("channels_last", [False, True])
def test_nobody_waits_for_the_way_to_the_device(channels_last: bool) -> None:
    with Copies() as copies:
        placed(latents_and_pictures(), torch.device("meta"), channels_last)
    assert copies.waits == [False, False]


def test_what_goes_to_a_gpu_is_pinned_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the copy would be waited for. Only a GPU lets memory be pinned; here it is seen who asks, and for
    which GPU: that of this rank, also in another thread."""
    batch, pinned, devices = latents_and_pictures(), list[torch.Tensor](), list[int]()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device", lambda index: devices.append(index) or nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    pinning()(Item(0, 0, 0, batch, None, []))
    assert [each is batch["images"] or each is batch["latents"] for each in pinned] == [True, True]
    assert devices == [3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU wants pinned memory")
def test_without_a_gpu_items_stay_as_they_are() -> None:
    item = Item(0, 0, 0, latents_and_pictures(), None, [])
    assert pinning()(item) is item


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_gets_what_the_worker_made(channels_last: bool) -> None:
    item = pinning()(Item(0, 0, 0, latents_and_pictures(), None, []))
    assert item.batch is not None and item.batch["images"].is_pinned() and item.batch["latents"].is_pinned()
    found = placed(item.batch, torch.device("cuda"), channels_last)
    assert torch.equal(found["images"].cpu(), latents_and_pictures()["images"])
