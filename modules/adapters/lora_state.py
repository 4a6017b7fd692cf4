"""A LoRA as plain tensors, whichever file layout it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

# Where the parts of a LoRA begin in the names of our own files, which are those that ComfyUI reads.
PREFIXES = {"unet": "diffusion_model", "text_encoder": "text_encoders.clip_g.transformer"}

PROJECTIONS = ("to_q", "to_k", "to_v")  # what attention keeps packed in one weight, in this order


class Factors(NamedTuple):
    """The change of one layer, as in `LoRALayer`. alpha None: the rank, so that the scale is 1."""

    down: Tensor
    up: Tensor
    alpha: Tensor | None = None
    dora_scale: Tensor | None = None


@dataclass
class LoRAState:
    """parts: for "unet" and "text_encoder" the factors by dotted layer name (queries, keys and values apart).

    tokens: trained token vectors [n, width] by text; output_tokens: OneTrainer's vectors behind the encoder.
    facts: what the file says of itself (base, settings).
    numbered: factors without names, by number, and rows: additions [width] to the token table, by row; both
    only in official files, until they are given names.
    """

    parts: Mapping[str, dict[str, Factors]] = field(default_factory=lambda: {part: {} for part in PREFIXES})
    tokens: dict[str, Tensor] = field(default_factory=dict)
    output_tokens: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: dict[int, Tensor] = field(default_factory=dict)
    numbered: dict[int, Factors] = field(default_factory=dict)


def split_projections(name: str, factors: Factors) -> dict[str, Factors]:
    """Factors by layer name: those of a packed `…attn.in_proj` are taken apart, and the three share `down`.

    ValueError when they also share magnitudes (by input), which cannot be taken apart.
    """
    stem, _, last = name.rpartition(".")
    if last != "in_proj":
        return {name: factors}
    magnitudes: list[Tensor | None] = [None] * 3
    if factors.dora_scale is not None:
        if factors.dora_scale.shape[0] != factors.up.shape[0]:
            raise ValueError(f"LoRA: {name}: three projections share magnitudes by input")
        magnitudes = list(factors.dora_scale.chunk(3))
    return {
        f"{stem}.{projection}": factors._replace(up=up, dora_scale=magnitude)
        for projection, up, magnitude in zip(PROJECTIONS, factors.up.chunk(3), magnitudes, strict=True)
    }
