"""A picture with a part painted over, and the mask of that part: for inpainting and outpainting."""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.adapters.filters import ControlFilter, Generators
from modules.adapters.masks import inner_mask, outer_mask
from modules.adapters.pixels import gaussian_blur, resized, uniform
from modules.network import Network, check_shape
from modules.schema import bounded
from modules.weights.loading import find_weights, load_network

SALIENCY_SIDE_PX = 240


@dataclass
class Inpainting(ControlFilter):
    """Red, green, blue, white where the mask is 1, and the mask.

    outpaint: chance that what surrounds a part is painted over, not the part. area: range of the share that
    is painted over.
    saliency: weights of a saliency network; then the part is what people look at: where its saliency is above
    a threshold from the range `threshold`, smoothed over blur_px (null: a fifth of the shorter side; 141 as
    published).
    """

    outpaint: float = bounded(0.4, least=0, most=1)
    area: tuple[float, float] = (0.1, 0.6)
    saliency: str | None = None
    threshold: tuple[float, float] = (0.1, 0.5)
    blur_px: int | None = bounded(None, least=1)
    channels = 4

    def __post_init__(self) -> None:
        for key, (low, high) in (("area", self.area), ("threshold", self.threshold)):
            if not 0 < low <= high < 1:
                raise ValueError(f"{key}: expected two shares between 0 and 1, found [{low}, {high}]")
        if self.saliency:
            find_weights(self.saliency, "saliency")

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        if self.saliency:
            thresholds = [uniform(generator, *self.threshold) for generator in generators]
            outside = [uniform(generator) < self.outpaint for generator in generators]
            return painted_over(images, self.salient(images, thresholds, outside))
        masks = [self._random_mask(images.shape[-2], images.shape[-1], rng) for rng in generators]
        return painted_over(images, torch.cat(masks))

    def _random_mask(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        make = outer_mask if uniform(generator) < self.outpaint else inner_mask
        return make(height, width, uniform(generator, *self.area), generator)

    @torch.no_grad()
    def salient(self, images: Tensor, thresholds: list[float], outside: list[bool]) -> Tensor:
        """Masks [B, 1, H, W] of what people look at in each picture, or of all else where `outside`."""
        height, width = images.shape[-2:]
        scale = SALIENCY_SIDE_PX / min(height, width)
        size = int(height * scale), int(width * scale)
        network = self._network.to(images.device)
        above = network(resized(images, size)) > images.new_tensor(thresholds).view(-1, 1, 1, 1)
        chosen = above ^ torch.tensor(outside, device=images.device).view(-1, 1, 1, 1)
        mask = F.interpolate(chosen.to(images.dtype), (height, width), mode="nearest")
        kernel_px = self.blur_px or min(height, width) // 5 // 2 * 2 + 1
        return (gaussian_blur(mask, kernel_px) > 0.5).to(images.dtype)

    @cached_property
    def _network(self) -> Network:
        assert self.saliency is not None
        return load_network(self.saliency, "saliency").eval().requires_grad_(False)


def painted_over(images: Tensor, masks: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1], masks [B, 1, H, W], 0 or 1 -> control [B, 4, H, W]."""
    check_shape("masks", masks, images.shape[0], 1, *images.shape[-2:])
    masks = masks.to(images)
    return torch.cat((images.lerp(torch.ones_like(images), masks), masks), dim=1)
