"""Sums and means over the processes of a run; with one process, nothing is sent."""

import torch.distributed as dist
from torch import Tensor


def total(values: Tensor) -> Tensor:
    """The element-wise sum over all ranks, the same on all of them; `values` stays as it is."""
    summed = values.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(summed)
    return summed


def mean(values: Tensor) -> Tensor:
    """The element-wise mean over all ranks, the same on all of them; `values` stays as it is."""
    return total(values) / (dist.get_world_size() if dist.is_initialized() else 1)
