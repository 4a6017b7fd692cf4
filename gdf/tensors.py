"""Small tensor helpers shared by the components."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """values in float32, or float64 if they are that already: log-SNRs and times do not fit 16 bits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def expand_like(values: Tensor, like: Tensor) -> Tensor:
    """values [B] as [B, 1, ...], with as many dimensions as `like`; other shapes come back as they are."""
    return values.view(-1, *[1] * (like.ndim - 1)) if values.ndim == 1 else values


def divide_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator is exactly 0."""
    is_zero = denominator == 0
    return torch.where(is_zero, 0.0, numerator / torch.where(is_zero, 1.0, denominator))
