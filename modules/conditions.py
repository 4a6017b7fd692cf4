"""From encoder outputs to what Stage B and Stage C are called with; the same in training and inference."""

import math
from typing import NamedTuple

from torch import Tensor


class TextFeatures(NamedTuple):
    """tokens: [B, L, D], last hidden state before the final norm. pooled: [B, 1, P], projected."""

    tokens: Tensor
    pooled: Tensor


def latent_size(size_px: int, compression: float) -> int:
    """Latent pixels that cover `size_px` pixels at `compression` pixels per latent pixel, rounded up."""
    # The margin keeps a factor such as 42.6666, written down with few digits, from costing a whole pixel.
    return max(1, math.ceil(size_px / compression - 1e-4))


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
