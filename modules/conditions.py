"""From encoder outputs to what Stage B and Stage C are called with; the same in training and inference."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from modules.pictures import resized
from modules.semantic_compressor import SemanticCompressor, normalise_images


class TextFeatures(NamedTuple):
    """tokens: [B, L, D], last hidden state before the final norm. pooled: [B, 1, P], projected."""

    tokens: Tensor
    pooled: Tensor


def latent_size(size_px: int, compression: float) -> int:
    """Latent pixels that cover `size_px` pixels at `compression` pixels per latent pixel, rounded up."""
    # The margin keeps a factor such as 42.6666, written down with few digits, from costing a whole pixel.
    return max(1, math.ceil(size_px / compression - 1e-4))


def compressor_grid(size_px: Sequence[int], scale: float, factor: int) -> tuple[int, int]:
    """Height and width in compressor latents of a picture [H, W] that the compressor sees shrunk by `scale`.

    As published, shrunk sides are rounded down to multiples of `factor` pixels per latent; at least one.
    """
    height, width = (max(1, math.floor(side * scale / factor)) for side in size_px)
    return height, width


def compress(compressor: SemanticCompressor, images: Tensor, grid: Sequence[int]) -> Tensor:
    """Compressor latents [B, c, *grid], float32, of pictures [B, 3, H, W] in [0, 1], resized to fit."""
    height, width = (side * compressor.factor for side in grid)
    return compressor(normalise_images(resized(images, height, width))).float()


def compress_shrunk(compressor: SemanticCompressor, images: Tensor, scale: float) -> Tensor:
    """Compressor latents [B, c, h, w], float32, of pictures [B, 3, H, W] in [0, 1], shrunk by `scale`."""
    return compress(compressor, images, compressor_grid(images.shape[2:], scale, compressor.factor))


def stage_c_inputs(text: TextFeatures, image_embeds: Tensor | None, c_clip_img: int) -> dict[str, Tensor]:
    """Keywords of StageC: text [B, ...] and image embeddings [B, S, c_clip_img], zeros when there are none.

    Unconditional: the features of the empty caption, and no image.
    """
    if image_embeds is None:
        image_embeds = text.pooled.new_zeros(len(text.pooled), 1, c_clip_img)
    return {"clip_text": text.tokens, "clip_text_pooled": text.pooled, "clip_img": image_embeds}


def stage_b_inputs(text: TextFeatures, effnet: Tensor) -> dict[str, Tensor]:
    """Keywords of StageB: pooled text [B, 1, P] and compressor latents [B, c_effnet, h, w].

    Unconditional: the features of the empty caption, and latents of zeros.
    """
    return {"effnet": effnet, "clip": text.pooled}
