"""The change of low rank that is nearest to a difference of weights (Eckart and Young 1936)."""

import torch
from torch import Tensor, nn

from modules.adapters.lora_state import Factors

OVERSAMPLING, POWER_ITERATIONS, SKETCH_SHARE = 16, 4, 0.25


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
    left, values, right = leading_values(difference.flatten(1), rank)
    kept = min(rank, count_for(values, energy * float(difference.double().square().sum())))
    roots = values[:kept].sqrt()  # shared out evenly, so that both factors are of one size
    up = (left[:, :kept] * roots).reshape(-1, kept, *(1 for _ in before.shape[2:]))
    down = (roots[:, None] * right[:kept]).reshape(kept, *before.shape[1:])
    return Factors(down.contiguous(), up.contiguous())


def leading_values(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """At least `rank` leading singular values (all there are, if fewer) with their vectors: U, S, V^T.

    A few of a large matrix come from a random sketch of it (Halko et al. 2011, algorithm 4.4), always the
    same: ten times faster at released sizes, and within a few thousandths of the most that can be held.
    """
    sketched = rank + OVERSAMPLING
    if sketched > SKETCH_SHARE * min(matrix.shape):
        return torch.linalg.svd(matrix, full_matrices=False)
    with torch.random.fork_rng(devices=[] if matrix.device.type == "cpu" else [matrix.device]):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(matrix, q=sketched, niter=POWER_ITERATIONS)
    return left, values, right.t()


def count_for(values: Tensor, squares: float) -> int:
    """How many of the falling singular values it takes for this sum of squares; all, where it is more."""
    held = values.double().square().cumsum(0)
    return min(int((held < squares).sum()) + 1, len(values))
