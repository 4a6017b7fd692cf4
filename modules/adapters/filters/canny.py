"""Canny's edges (Canny 1986), by OpenCV: thin lines where the brightness changes."""

from dataclasses import dataclass

import cv2
import torch
from torch import Tensor

from modules.adapters.filters import MOST_PX, ControlFilter, Generators
from modules.adapters.pixels import resized, short_side_at_most
from modules.schema import bounded

# OpenCV's own threads would hang in a forked data worker, and several workers' would crowd each other out.
cv2.setNumThreads(0)


@dataclass
class Canny(ControlFilter):
    """Edges, 0 or 1.

    low, high: OpenCV's thresholds, in levels of eight bits. size_px: edges are sought in the picture shrunk
    to a shorter side of so many pixels (null: in the picture as it is).
    as_published: in the picture squeezed or blown up to a square of size_px, and grey where edges were
    resized back; so the released weights learned.
    """

    low: float = bounded(100.0, least=0)
    high: float = bounded(200.0, least=0)
    size_px: int | None = bounded(224, least=8, most=MOST_PX)
    as_published: bool = False

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        if self.as_published:
            return self._published(images)
        size = short_side_at_most(images, self.size_px)
        small = (resized(images, size) * 255).round().clamp(0, 255)
        return (resized(self._edges(small), images.shape[-2:]) > 0.5).to(images.dtype)

    def _published(self, images: Tensor) -> Tensor:
        size = (self.size_px, self.size_px) if self.size_px else images.shape[-2:]
        small = resized(images, size, antialias=False) * 255  # [B, 3, size_px, size_px]
        return resized(self._edges(small), images.shape[-2:], antialias=False)

    def _edges(self, levels: Tensor) -> Tensor:
        """Pictures [B, 3, h, w], 0 to 255, cut off to whole levels -> edges [B, 1, h, w], 0 or 1."""
        pictures = levels.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        edges = [torch.from_numpy(cv2.Canny(picture, self.low, self.high)) for picture in pictures]
        return (torch.stack(edges)[:, None] / 255).to(levels.device, levels.dtype)
