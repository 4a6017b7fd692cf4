"""The change of low rank that is nearest to a difference of weights (Eckart and Young 1936)."""

import torch
from torch import Tensor, nn

from modules.adapters.lora_state import Factors


@torch.no_grad()
def low_rank_difference(base: nn.Module, tuned: nn.Module, rank: int, energy: float) -> Factors | None:
    """Factors of tuned's weight minus base's, in float32; None where the two are equal.

    rank: the most singular values that are kept. energy: of those, the fewest that hold this share, in
    (0, 1], of the sum of all squares. ValueError for weights of different shapes or an impossible share.
    """
    before: Tensor = base.weight  # type: ignore[assignment]
    after: Tensor = tuned.weight  # type: ignore[assignment]
    if before.shape != after.shape:
        raise ValueError(f"LoRA: weights of shapes {list(before.shape)} and {list(after.shape)} to compare")
    if not 0 < energy <= 1:
        raise ValueError(f"LoRA energy: expected a share in (0, 1], found {energy}")
    difference = after.float() - before.float()
    if not difference.any():
        return None
    left, values, right = torch.linalg.svd(difference.flatten(1), full_matrices=False)
    kept = min(rank, count_for(values, energy))
    roots = values[:kept].sqrt()  # shared out evenly, so that both factors are of one size
    up = (left[:, :kept] * roots).reshape(-1, kept, *(1 for _ in before.shape[2:]))
    down = (roots[:, None] * right[:kept]).reshape(kept, *before.shape[1:])
    return Factors(down.contiguous(), up.contiguous())


def count_for(values: Tensor, energy: float) -> int:
    """How many of the falling singular values it takes to hold this share of the sum of squares."""
    held = values.double().square().cumsum(0)
    return min(int((held < energy * held[-1]).sum()) + 1, len(values))
