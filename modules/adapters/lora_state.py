"""A LoRA as plain tensors, whichever file layout it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

# Where the parts of a LoRA begin in the names of our own files, which are those that ComfyUI reads.
PREFIXES = {"unet": "diffusion_model", "text_encoder": "text_encoders.clip_g.transformer"}


class Factors(NamedTuple):
    """The change of one layer, as in `LoRALayer`. alpha None: the rank, so that the scale is 1."""

    down: Tensor
    up: Tensor
    alpha: Tensor | None = None
    dora_scale: Tensor | None = None


@dataclass
class LoRAState:
    """parts: for "unet" and "text_encoder" the factors by dotted layer name (queries, keys and values apart).

    tokens: trained token vectors [n, width] by text. facts: what the file says of itself (network, base,
    settings). rows: additions [width] to the token table by row, and numbered: factors without names by
    number; both only in official files, until they are given names.
    """

    parts: Mapping[str, dict[str, Factors]] = field(default_factory=lambda: {part: {} for part in PREFIXES})
    tokens: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: dict[int, Tensor] = field(default_factory=dict)
    numbered: dict[int, Factors] = field(default_factory=dict)
