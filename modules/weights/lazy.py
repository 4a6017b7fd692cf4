"""Tensors that are read only when they are needed, so that files larger than the memory can be converted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LazyTensor:
    """A tensor's shape and number format, and how to get it; `read` may be called any number of times."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> "LazyTensor":
        """The rows from `start` to before `stop`, along the first dimension."""
        return LazyTensor((stop - start, *self.shape[1:]), self.dtype, lambda: self.read()[start:stop])

    def transposed(self) -> "LazyTensor":
        """A matrix with rows and columns exchanged."""
        return LazyTensor(self.shape[::-1], self.dtype, lambda: self.read().t())

    def to(self, dtype: torch.dtype | None) -> "LazyTensor":
        """In another number format, if this one is of floating numbers; None leaves it as it is."""
        if dtype in (None, self.dtype) or not self.dtype.is_floating_point:
            return self
        return LazyTensor(self.shape, dtype, lambda: self.read().to(dtype))


State = Mapping[str, LazyTensor]


def lazy(tensor: Tensor) -> LazyTensor:
    """A tensor that is there already."""
    return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def lazy_state(tensors: Mapping[str, Tensor]) -> dict[str, LazyTensor]:
    """A state dict as it is handed to the functions of this room."""
    return {name: lazy(tensor) for name, tensor in tensors.items()}


def thirds(tensor: LazyTensor) -> list[LazyTensor]:
    """Three equal groups of rows. ValueError when the number of rows is no multiple of 3."""
    rows, rest = divmod(tensor.shape[0], 3)
    if rest:
        raise ValueError(f"expected a number of rows that 3 divides, found {tensor.shape[0]}")
    return [tensor.rows(n * rows, (n + 1) * rows) for n in range(3)]


def stacked(tensors: Sequence[LazyTensor]) -> LazyTensor:
    """Tensors one below the other, along the first dimension. ValueError when they do not fit together."""
    first = tensors[0]
    if any(tensor.shape[1:] != first.shape[1:] or tensor.dtype != first.dtype for tensor in tensors):
        raise ValueError(f"expected tensors alike, found the shapes {[list(t.shape) for t in tensors]}")
    shape = (sum(tensor.shape[0] for tensor in tensors), *first.shape[1:])
    return LazyTensor(shape, first.dtype, lambda: torch.cat([tensor.read() for tensor in tensors]))
