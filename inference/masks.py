"""Masks: where a picture is drawn anew, in pixels and in latents, and the soft seam around it."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from inference.adapters import Margins
from inference.sizes import Size
from inference.sources import fit, open_source, source_size

EDGE_SHARE = 64  # a seam is this fraction of the shorter side unless its width is given


def open_mask(path: str, size: Size) -> Image.Image:
    """Read the mask of a picture of that size: white where it is to be drawn anew.

    Raises ValueError when sizes differ or nothing is white, and what open_source raises.
    """
    mask = open_source(path, "mask").convert("L")
    if source_size(mask) != size:
        found, wanted = (f"{s.width} x {s.height}" for s in (source_size(mask), size))
        raise ValueError(f"mask: {path} is {found} pixels, the picture {wanted}; make them the same size")
    if int(np.asarray(mask).max()) < 128:
        raise ValueError(f"mask: {path} is black all over; paint white what is to be drawn anew")
    return mask


def fit_mask(mask: Image.Image, size: Size) -> Tensor:
    """Bring a mask to a size as `fit` does a picture: [1, height, width], 0 or 1; at least one pixel is 1."""
    grey = fit(mask.convert("RGB"), size)[:1]
    return (grey >= min(0.5, float(grey.max()))).float()


def widened(image: Image.Image, margins: Margins) -> tuple[Image.Image, Image.Image]:
    """A picture with margins, which continue its outermost pixels, and the mask of these margins."""
    sides = ((margins.top_px, margins.bottom_px), (margins.left_px, margins.right_px))
    canvas = np.pad(np.asarray(image), (*sides, (0, 0)), mode="edge")
    mask = np.pad(np.zeros((image.height, image.width), np.uint8), sides, constant_values=255)
    return Image.fromarray(canvas), Image.fromarray(mask)


def masks_at(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Masks [B, 1, H, W] of another size, [B, 1, *grid]: 1 wherever a masked pixel falls in."""
    return F.adaptive_max_pool2d(masks, tuple(grid))


def seam(masks: Tensor, edge_px: int | None) -> Tensor:
    """How much of the new drawing is seen: 1 on the mask, 0 beyond edge_px from it, a ramp between.

    masks: [B, 1, H, W], and so the result. edge_px: None for a 64th of the shorter side.
    """
    if edge_px is None:
        edge_px = min(masks.shape[-2:]) // EDGE_SHARE
    radius = min((edge_px + 1) // 2, max(masks.shape[-2:]))  # which reaches everything
    if not radius:
        return masks
    # A box as wide as the mask was grown lies, around each pixel of the mask, on the grown one alone.
    grown = F.max_pool2d(masks, 2 * radius + 1, stride=1, padding=radius)
    return F.avg_pool2d(F.pad(grown, [radius] * 4, mode="replicate"), 2 * radius + 1, stride=1)


def put_back(drawn: Tensor, original: Tensor, masks: Tensor, edge_px: int | None) -> Tensor:
    """Drawn pictures [B, 3, H, W] with the original's own pixels outside the masks and their seams."""
    share = seam(masks, edge_px).to(drawn)
    return torch.where(share == 0, original.to(drawn), share * drawn + (1 - share) * original.to(drawn))
