"""Copies of this rank's pieces in the memory of the CPU, where training cannot change them any more."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.devices import copies_beside
from train.parallel.pieces import Dealer, Piece
from train.parallel.world import World


@dataclass(frozen=True)
class Snapshot:
    """What one rank saves of a step: pieces of tensors by name, and the content of text files by name."""

    step: int
    pieces: Mapping[str, Piece]
    texts: Mapping[str, str]


class Staging:
    """Memory that is used again for every snapshot: on Linux, new memory costs more than copying into it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._buffers: dict[str, Tensor] = {}

    def copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Piece]:
        """The pieces of `tensors` that this rank saves, as they are now; valid until the next call.

        All ranks must call with the same names in the same order.
        """
        dealer, copies = Dealer(self.world), {}
        for name, tensor in tensors.items():
            if piece := dealer.own(tensor):
                buffer = self._buffer(name, piece.values)
                buffer.copy_(piece.values, non_blocking=copies_beside(self.world.device))
                copies[name] = Piece(buffer, piece.offsets)
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        return copies

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        """Pinned where it is copied to from a GPU: else the copy would go through pinned memory first."""
        buffer = self._buffers.get(name)
        if buffer is None or (buffer.shape, buffer.dtype) != (like.shape, like.dtype):
            buffer = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
            self._buffers[name] = buffer
        return buffer
