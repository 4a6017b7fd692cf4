"""A small Stage C and LoRAs for it, for the tests of the commands about weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules import build
from modules.adapters.lora import LoRA
from modules.weights import load_network

CONFIG = {
    "c_in": 4,
    "c_out": 4,
    "c_r": 8,
    "c_cond": 16,
    "c_hidden": [16, 24],
    "nhead": [2, 3],
    "blocks": [[1, 1], [1, 1]],
    "c_clip_text": 16,
    "c_clip_text_pooled": 12,
    "c_clip_img": 12,
    "dropout": 0.0,
}
PATTERNS = {"*attention*": 3, "*channelwise*": 2}


def network(seed: int) -> Any:
    """Stage C with random weights."""
    torch.manual_seed(seed)
    built = build("stage_c", CONFIG)
    for parameter in built.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return built


def random_lora(base: Any, seed: int) -> LoRA:
    torch.manual_seed(seed)
    lora = LoRA.create(base, PATTERNS, alpha=2.0)
    for layer in lora.layers.values():
        for parameter in layer.parameters():
            parameter.data.normal_(std=0.2)
    return lora


def state(path: Path) -> dict[str, Tensor]:
    """The tensors of the Stage C that a file or folder holds."""
    return load_network(path, "stage_c").state_dict()


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=tolerance, rtol=tolerance, msg=name)
