"""Which part of a tensor this rank holds, and which of the ranks that hold the same part saves it."""

from typing import NamedTuple

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from train.parallel.world import World


class Piece(NamedTuple):
    """A block of a larger tensor. offsets: where in it the block begins, per dimension."""

    values: Tensor
    offsets: tuple[int, ...]


class Dealer:
    """Deals tensors that several ranks hold alike out among them, about the same number of bytes to each.

    All ranks must ask for the same tensors in the same order; nothing is sent.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._bytes: dict[int, list[int]] = {}  # number of copies -> bytes dealt to each of them

    def own(self, tensor: Tensor) -> Piece | None:
        """The piece of `tensor` that this rank saves; None where it has none, or another rank saves it."""
        copy, copies = self._copy(tensor)
        dealt = self._bytes.setdefault(copies, [0] * copies)
        owner = dealt.index(min(dealt))
        dealt[owner] += tensor.numel() * tensor.element_size()
        piece = held(tensor)
        return piece if copy == owner and piece.values.numel() else None

    def _copy(self, tensor: Tensor) -> tuple[int, int]:
        """Which of how many equal copies of its piece this rank holds."""
        if not isinstance(tensor, DTensor):
            return self.world.rank, self.world.size
        copy, copies = 0, 1
        places = tensor.device_mesh.get_coordinate()
        assert places is not None, "every rank is part of every mesh"
        for dim, placement in enumerate(tensor.placements):
            if isinstance(placement, Replicate):
                copy = copy * tensor.device_mesh.size(dim) + places[dim]
                copies *= tensor.device_mesh.size(dim)
        return copy, copies


def held(tensor: Tensor) -> Piece:
    """The part of `tensor` that is in this rank's memory: the whole one unless it is sharded."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return Piece(tensor, (0,) * tensor.ndim)
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return Piece(tensor.to_local(), tuple(offsets))
