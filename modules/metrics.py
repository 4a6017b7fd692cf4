"""How near a picture is to another one."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

# Wang et al. 2004, "Image quality assessment", section III-C: window and constants for values from 0 to 1.
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB.

    images, references: [B, 3, H, W], 0 to 1. Returns [B]; infinite where two pictures are equal.
    """
    error = (images.float() - references.float()).square().flatten(1).mean(1)
    return -10 * error.log10()


def ssim(images: Tensor, references: Tensor) -> Tensor:
    """Structural similarity of each picture, 1 for equal ones; the mean over colours and window places.

    images, references: [B, 3, H, W], 0 to 1, both sides at least 11. Returns [B].
    """
    if min(images.shape[2:]) < WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {WINDOW} pixels a side, found {tuple(images.shape[2:])}"
        )
    x, y = (
        images.double().flatten(0, 1)[:, None],
        references.double().flatten(0, 1)[:, None],
    )  # [B·3, 1, H, W]
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    cov = _blur(x * y) - mean_x * mean_y
    index = ((2 * mean_x * mean_y + C1) * (2 * cov + C2)) / (
        (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
    )
    return index.reshape(len(images), -1).mean(1).float()


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    return conv2d(conv2d(x, weights.reshape(1, 1, -1, 1)), weights.reshape(1, 1, 1, -1))
