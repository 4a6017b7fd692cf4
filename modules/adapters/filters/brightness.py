"""Dark, middle and bright places: for pictures in which a QR code or another pattern of light can be read."""

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.adapters.filters import MOST_PX, ControlFilter, Generators
from modules.adapters.pixels import closed, gaussian_blur, resized, short_side_at_most, uniform
from modules.schema import bounded

THIRD = 0.33


@dataclass
class Brightness(ControlFilter):
    """0 in the darkest third of a picture's range of brightness, 1 in the brightest, 0.5 between.

    size_px: shorter side at which places are found (null: the picture's own). blobs: chance that details are
    smoothed away first: blurred over blur_px (0: not) with a deviation from the range sigma_px, and dark
    details within a diamond of closing_px closed (0: not).
    as_published: in a square of size_px, the range taken from the first picture of a batch, and levels
    between the three where places were resized back.
    """

    size_px: int | None = bounded(224, least=8, most=MOST_PX)
    blobs: float = bounded(1.0, least=0, most=1)
    closing_px: int = bounded(5, least=0, most=MOST_PX)
    blur_px: int = bounded(15, least=0)
    sigma_px: tuple[float, float] = (0.1, 2.0)
    as_published: bool = False

    def __post_init__(self) -> None:
        low, high = self.sigma_px
        if not 0 < low <= high:
            raise ValueError(f"sigma_px: expected two widths above 0, found [{low}, {high}]")

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        if self.as_published:
            size = (self.size_px, self.size_px) if self.size_px else tuple(images.shape[-2:])
        else:
            size = short_side_at_most(images, self.size_px)
        small = resized(images, size, antialias=not self.as_published)
        value = small.amax(1, keepdim=True)  # of hue, saturation and value
        value = torch.cat(
            [self._smoothed(value[i : i + 1], generator) for i, generator in enumerate(generators)]
        )
        levels = thirds(value, value[:1] if self.as_published else value)
        whole = resized(levels, images.shape[-2:], antialias=False)
        return whole if self.as_published else (2 * whole).round() / 2

    def _smoothed(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """One picture's brightness [1, 1, h, w], with chance `blobs` without its details."""
        blobs, sigma = uniform(generator) < self.blobs, uniform(generator, *self.sigma_px)
        if not blobs:
            return value
        return closed(gaussian_blur(value, self.blur_px, sigma), self.closing_px // 2)


def thirds(value: Tensor, reference: Tensor) -> Tensor:
    """0, 0.5 or 1 for values [B, 1, h, w] in the lower, middle or upper part of each reference's range."""
    low, high = (extreme(reference, (1, 2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
    margin = THIRD * (high - low)
    return 0.5 + 0.5 * (value > high - margin).to(value.dtype) - 0.5 * (value < low + margin).to(value.dtype)
