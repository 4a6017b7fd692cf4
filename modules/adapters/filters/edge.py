"""Soft edges: by a learned network when its weights are given, else by the plain gradient."""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.adapters.filters import ControlFilter, Generators
from modules.adapters.pixels import gaussian_blur, resized, short_side_at_most
from modules.network import Network
from modules.schema import bounded
from modules.weights.loading import find_weights, load_network


@dataclass
class Edge(ControlFilter):
    """Strength of edges, 0 to 1.

    weights: of PiDiNet; null takes the gradient, of which a step from black to white gives 1. size_px:
    shorter side at which edges are sought (null: the picture's own).
    """

    weights: str | None = None
    size_px: int | None = bounded(224, least=8)

    def __post_init__(self) -> None:
        if self.weights:
            find_weights(self.weights, "pidinet")

    @torch.no_grad()
    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        small = resized(images, short_side_at_most(images, self.size_px))
        edges = self._network.to(small.device)(small) if self.weights else gradient(small)
        return resized(edges, images.shape[-2:], antialias=False)

    @cached_property
    def _network(self) -> Network:
        assert self.weights is not None
        return load_network(self.weights, "pidinet").eval().requires_grad_(False)


def gradient(images: Tensor) -> Tensor:
    """Length of the steepest channel's gradient, slightly smoothed, [B, 1, H, W] in [0, 1]."""
    smooth = F.pad(gaussian_blur(images, 3), (1, 1, 1, 1), mode="replicate")
    across = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    down = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    # Across a step of 1, the smoothed values two pixels apart differ by the two taps that have crossed it.
    step = 1 - float(gaussian_blur(torch.tensor([0.0, 0, 1, 1]).expand(1, 1, 4, 4), 3)[0, 0, 0, 1])
    return (torch.hypot(across, down).amax(1, keepdim=True) / step).clamp(max=1)
