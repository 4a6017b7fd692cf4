"""What the device gets of a batch."""

import torch

from dataset_tools.batches import Batch
from train.feed import placed


def test_pictures_and_their_controls_are_laid_out_as_the_networks_are() -> None:
    images, control = (torch.zeros(2, c, 8, 8, dtype=torch.uint8) for c in (3, 4))
    batch = Batch(images=images, control=control, captions=["a", "b"], keys=["0", "1"])
    found = placed(batch, torch.device("meta"), channels_last=True)
    for pictures in (found["images"], found["control"]):
        assert pictures.device.type == "meta"
        assert pictures.is_contiguous(memory_format=torch.channels_last)
    assert found["captions"] == ["a", "b"]
