"""Frozen networks with their linear layers in few bits: 4 (NF4, needs bitsandbytes) or 8 (int8)."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from modules.adapters.eight_bit import EightBitLinear
from modules.adapters.four_bit import FourBitLinear
from modules.attention import Attention, PackedLinear

Format = Literal["nf4", "int8"]
QuantisedLinear = FourBitLinear | EightBitLinear
LAYERS: dict[str, Callable[[Tensor, Tensor | None], nn.Module]] = {
    "nf4": FourBitLinear,
    "int8": EightBitLinear,
}


class Size(NamedTuple):
    """Bytes of a network's parameters and buffers, before and after."""

    before: int
    after: int


def quantise(network: nn.Module, kind: Format = "nf4", device: torch.device | None = None) -> Size:
    """Replace a frozen network's linear layers, packed projections among them, in place.

    Convolutions, biases and what is not a layer stay as they are. Adapters are attached afterwards.
    device: where each layer is quantised and stays, so that a GPU never holds the whole of a network that
    lies in the CPU's memory; what stays as it is stays where it is. None: where the weights are.
    ValueError when nf4 is asked for and bitsandbytes is not installed, or a linear layer has an adapter or
    asks for gradients.
    """
    before = size_bytes(network)
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear | PackedLinear):
                if any(True for _ in layer.children()) or layer.weight.requires_grad:
                    raise ValueError(f"{kind}: freeze the network first, attach adapters afterwards")
                bias = None if layer.bias is None else layer.bias.to(device)
                setattr(module, name, LAYERS[kind](layer.weight.to(device), bias))
        if isinstance(module, Attention):
            module.in_proj_weight = module.in_proj_bias = None  # type: ignore[assignment]
    return Size(before, size_bytes(network))


def size_bytes(network: nn.Module) -> int:
    """Of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
