"""Pictures of a batch as numbers, and numbers as pictures."""

from torch import Tensor

from dataset_tools.batches import Batch


def pictures(batch: Batch) -> Tensor:
    """The batch's images as float32 [B, 3, H, W] in [0, 1]."""
    return batch["images"].float() / 255


def num_counted(batch: Batch) -> int:
    """How many of the batch's rows are read for the first time: none of a borrowed batch (see train.feed)."""
    return len(batch["captions"]) if batch.get("share", 1.0) else 0
