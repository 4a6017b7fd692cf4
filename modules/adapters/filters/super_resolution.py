"""Semantic compressor latents of a shrunk picture: what is in it, without its details."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.adapters.filters import ControlFilter, Generators
from modules.adapters.filters.pixelated import shrunk
from modules.conditions import compress, compressor_grid
from modules.schema import bounded
from modules.semantic_compressor import normalise_images


@dataclass
class SuperResolution(ControlFilter):
    """Latents of the picture shrunk by `scale`, on the grid of the whole picture.

    as_published: shrunk by taking every n-th pixel, so that latents depend on single pixels; so the released
    weights learned.
    """

    scale: float = bounded(0.5, least=0.01, most=1.0)
    as_published: bool = False
    in_workers = False

    @property
    def channels(self) -> int:  # type: ignore[override]
        return self.compressor.config["c_latent"] if self.compressor else 16

    @torch.no_grad()
    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        if self.compressor is None:
            raise ValueError("the control filter super_resolution needs a semantic compressor")
        if self.as_published:
            small = shrunk(images, self.scale, antialias=False)
            latents = self.compressor(normalise_images(small)).float()
        else:
            grid = compressor_grid(images.shape[-2:], self.scale, self.compressor.factor)
            latents = compress(self.compressor, images, grid)
        return F.interpolate(latents, scale_factor=1 / self.scale, mode="nearest")
