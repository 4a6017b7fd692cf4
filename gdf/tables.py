"""Functions given by tables: piecewise linear interpolation, and latent diffusion's noise levels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gdf.tensors import divide_or_zero


def interpolate(x: Tensor, knots_x: Tensor, knots_y: Tensor) -> Tensor:
    """The piecewise linear function through (knots_x, knots_y) at x, constant outside.

    knots_x: [K], rising; knots_y: [K]. Returns the shape of x.
    """
    right = torch.searchsorted(knots_x, x.contiguous()).clamp(1, len(knots_x) - 1)
    share = divide_or_zero(x - knots_x[right - 1], knots_x[right] - knots_x[right - 1])
    return torch.lerp(knots_y[right - 1], knots_y[right], share.clamp(0, 1))


def interpolate_inverse(y: Tensor, knots_x: Tensor, knots_y: Tensor, extrapolate: bool = False) -> Tensor:
    """The x at which the falling piecewise linear function through the knots has the values y; ends outside.

    knots_x, knots_y: [K]. extrapolate: continue the line of the segment before the right one, as the
    published code does (wrong by up to 1e-4 of the range for 200 knots).
    """
    falling = knots_y.flip(0)
    segment = len(knots_y) - 1 - torch.searchsorted(falling, y.contiguous()).clamp(1, len(knots_y) - 1)
    if extrapolate:
        segment = (segment - 1).clamp(min=0)
    share = (y - knots_y[segment]) / (knots_y[segment + 1] - knots_y[segment])
    return (knots_x[segment] + share * (knots_x[segment + 1] - knots_x[segment])).clamp(
        knots_x[0], knots_x[-1]
    )


def stable_diffusion_table(linear_range: Sequence[float], total_steps: int) -> tuple[Tensor, Tensor]:
    """Times [N + 1] from 0 to 1 and their signal variances [N + 1], in float64, for N = total_steps.

    alpha-bar_k = Π_{j <= k} (1 - beta_j), the roots of beta going evenly from the first to the last of
    linear_range.
    """
    times = torch.linspace(0, 1, total_steps + 1, device="cpu", dtype=torch.float64)
    first, last = (beta**0.5 for beta in linear_range)
    return times, (1 - (first + times * (last - first)) ** 2).cumprod(0)
