"""Networks and encoders as small as their structure allows, and what their files hold."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from modules.weights.parts import Part

CLIP = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "projection_dim": 12,
}
SMALL: dict[str, dict[str, Any]] = {
    "stage_a": {"bottleneck_blocks": 1, "c_hidden": 16, "codebook_size": 32, "scale_factor": 0.5},
    "stage_b": {
        "c_hidden": [64, 128],
        "nhead": [-1, 2],
        "blocks": [[1, 1], [1, 1]],
        "level_config": ["CT", "CTA"],
    }
    | {"c_cond": 32, "c_r": 8, "c_clip": 12, "block_repeat": [[1, 1], [2, 1]], "dropout": [0.0, 0.1]},
    "stage_c": {"c_hidden": [64, 128], "nhead": [1, 2], "blocks": [[1, 1], [1, 1]], "c_cond": 32, "c_r": 8}
    | {
        "block_repeat": [[1, 1], [1, 1]],
        "c_clip_text": 64,
        "c_clip_text_pooled": 12,
        "c_clip_img": 12,
        "dropout": [0.1, 0.1],
    },
    "semantic_compressor": {"c_latent": 16},
    "previewer": {"c_hidden": 16},
    "controlnet": {"c_in": 1, "c_proj": 16, "bottleneck_mode": "effnet"},
}


def tensors(part: Part) -> dict[str, Tensor]:
    return {name: tensor.read() for name, tensor in part.state.items()}


def assert_same(one: Part, other: Part, also_config: bool = True) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
    if also_config:
        assert other.config.items() >= one.config.items()
        assert other.facts.items() >= one.facts.items()


def keys_of(file: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(file, "pt") as opened:
        return {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
