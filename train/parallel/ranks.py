"""Sums and means over the processes of a run, and values of all; with one process, nothing is sent."""

from typing import Any

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


def gather(value: Any) -> list[Any]:
    """Every rank's value (plain data or CPU tensors), in the order of ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
