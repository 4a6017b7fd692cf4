"""LoRAs that have learned something, for the tests of what a LoRA does to a network."""

from typing import Any

import torch
from torch import nn

from modules.adapters.lora import LoRA

DORA = (False, "output", "input")
EVERYWHERE = {"*": 4, "*.depthwise": 2, "*.to_v": 3}


def trained(network: nn.Module, layers: Any = EVERYWHERE, seed: int = 3, **settings: Any) -> LoRA:
    """A LoRA whose every parameter has moved from where it starts."""
    lora = LoRA.create(network, layers, **settings)
    rng = torch.Generator().manual_seed(seed)
    for parameter in lora.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return lora


def merged(network: Any, *loras: LoRA, weight: float = 1.0) -> Any:
    """A copy with the LoRAs in its weights."""
    copy = type(network)(**network.config).eval()
    copy.load_state_dict(network.state_dict())
    for lora in loras:
        lora.merge(copy, weight)
    return copy
