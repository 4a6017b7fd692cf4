"""From the rows of a batch to its tensors: one copy, straight to where the training process reads them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dataset_tools.arrays import take_apart
from dataset_tools.workers import is_worker


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """The rows, of one shape and type, in one tensor [B, ...] without gaps.

    Pictures, uint8 [3, H, W], may lie in memory pixel by pixel, as decoders leave them; they are taken apart
    into their three colours on the way. Raises RuntimeError for rows of several shapes.
    """
    batch = _empty(len(rows), rows[0])
    if batch.dtype != torch.uint8 or batch.dim() != 4 or batch.shape[1] != 3:
        return torch.stack(list(rows), out=batch)
    for place, row in zip(batch, rows, strict=True):
        if row.shape != place.shape:  # take_apart would write elsewhere, copy_ repeat what is smaller
            raise RuntimeError(f"a row of {tuple(row.shape)} among rows of {tuple(place.shape)}")
        if row.stride(0) == 1:  # pixel by pixel: this is several times as fast as copy_
            take_apart(row.permute(1, 2, 0).numpy(), place.numpy())
        else:
            place.copy_(row)
    return batch


def _empty(number: int, row: Tensor) -> Tensor:
    """Room for so many rows. In a data worker it is shared memory: to send it would cost another copy."""
    shape = (number, *row.shape)
    if not is_worker():
        return row.new_empty(shape)
    num_bytes = number * row.numel() * row.element_size()
    storage = torch.UntypedStorage._new_shared(num_bytes)  # as torch's own default_collate does
    return row.new_empty(0).set_(storage).view(shape)
