"""Operations on pictures that several control filters need; all on [B, c, H, W]."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resized(x: Tensor, size: Sequence[int], antialias: bool = True) -> Tensor:
    """Bilinear resizing to (height, width); of that size already: the same tensor."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", antialias=antialias)


def short_side_at_most(x: Tensor, size_px: int | None) -> tuple[int, int]:
    """Height and width of x, shrunk in proportion until the shorter is size_px (None: as they are)."""
    height, width = x.shape[-2:]
    scale = min(1.0, size_px / min(height, width)) if size_px else 1.0
    return max(1, round(height * scale)), max(1, round(width * scale))


def gaussian_blur(x: Tensor, kernel_px: int, sigma_px: float | None = None) -> Tensor:
    """Blur with a Gaussian cut off at kernel_px (odd), the picture continued by reflection.

    sigma_px: None takes OpenCV's rule for a kernel, 0.3 ((kernel_px - 1) / 2 - 1) + 0.8. Small pictures are
    blurred with as much of the kernel as their reflection allows.
    """
    sigma = sigma_px if sigma_px is not None else 0.3 * (kernel_px // 2 - 1) + 0.8
    radius = min(kernel_px // 2, min(x.shape[-2:]) - 1)
    places = torch.arange(-radius, radius + 1, dtype=torch.float32, device=x.device)
    weights = torch.softmax(-0.5 * (places / sigma) ** 2, 0).to(x.dtype)
    channels = x.shape[1]
    across = weights.expand(channels, 1, 1, -1)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="reflect"), across, groups=channels)
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="reflect"), across.mT, groups=channels)


def dilated(x: Tensor, radius_px: int) -> Tensor:
    """The largest value within radius_px steps to a side: a diamond, made of that many small crosses."""
    for _ in range(radius_px):
        x = torch.maximum(F.max_pool2d(x, (3, 1), 1, (1, 0)), F.max_pool2d(x, (1, 3), 1, (0, 1)))
    return x


def closed(x: Tensor, radius_px: int) -> Tensor:
    """Dilation, then erosion: dark details that are smaller than the diamond disappear."""
    return -dilated(-dilated(x, radius_px), radius_px)


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """A number in [low, high), drawn for one picture."""
    return low + (high - low) * float(torch.rand((), generator=generator))
