"""The picture at a lower resolution: what a ControlNet can fill with detail."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from modules.adapters.filters import ControlFilter, Generators
from modules.adapters.pixels import resized
from modules.schema import bounded


@dataclass
class Pixelated(ControlFilter):
    """Shrunk by `scale` and enlarged again.

    as_published: by taking every n-th pixel, so that what small pictures show depends on single pixels.
    """

    scale: float = bounded(0.5, least=0.01, most=1.0)
    as_published: bool = False
    channels = 3

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        small = shrunk(images, self.scale, antialias=not self.as_published)
        return F.interpolate(small, images.shape[-2:], mode="nearest")


def shrunk(images: Tensor, scale: float, antialias: bool = True) -> Tensor:
    """Pictures at `scale` of their size, rounded down, at least a pixel; by every n-th pixel, or smoothly."""
    height, width = (max(1, int(side * scale)) for side in images.shape[-2:])
    if antialias:
        return resized(images, (height, width))
    return F.interpolate(images, (height, width), mode="nearest")
