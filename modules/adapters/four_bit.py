"""Frozen linear layers in four bits per weight (NF4: Dettmers et al. 2023, section 3), by bitsandbytes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modules.blocks import Attention, PackedLinear

BLOCK_SIZE = 64  # weights that share one scale: 4.5 bits per weight in all


class Size(NamedTuple):
    """Bytes of a network's parameters and buffers, before and after."""

    before: int
    after: int


class FourBitLinear(nn.Module):
    """A linear layer whose weight [out, in] is kept in NF4; it does not learn, gradients pass through it.

    The codes are a buffer, not a parameter: sharding leaves them alone, every rank has them whole.
    ValueError when bitsandbytes is not installed.
    """

    codes: Tensor
    maxima: Tensor
    levels: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        codes, state = bitsandbytes().functional.quantize_4bit(
            weight.detach().contiguous(), blocksize=BLOCK_SIZE, quant_type="nf4"
        )
        self.register_buffer("codes", codes)
        self.register_buffer("maxima", state.absmax)
        self.register_buffer("levels", state.code)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weight [out, in] that the codes stand for, computed anew at each look."""
        return bitsandbytes().functional.dequantize_4bit(self.codes, self._state())

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return bitsandbytes().matmul_4bit(x, self.codes, quant_state=self._state(), bias=bias)

    def _state(self) -> Any:
        return bitsandbytes().functional.QuantState(
            absmax=self.maxima,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self.levels,
            blocksize=BLOCK_SIZE,
            quant_type="nf4",
            dtype=self.dtype,
        )


def quantise(network: nn.Module) -> Size:
    """Replace a frozen network's linear layers, packed projections among them, by 4-bit ones, in place.

    Convolutions, biases and what is not a layer stay as they are. Adapters are attached afterwards.
    ValueError when bitsandbytes is not installed, or a linear layer has an adapter or asks for gradients.
    """
    before = size_bytes(network)
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear | PackedLinear):
                if any(True for _ in layer.children()) or layer.weight.requires_grad:
                    raise ValueError("4 bits: freeze the network first, attach adapters afterwards")
                setattr(module, name, FourBitLinear(layer.weight, layer.bias))
        if isinstance(module, Attention):
            module.in_proj_weight = module.in_proj_bias = None  # type: ignore[assignment]
    return Size(before, size_bytes(network))


def size_bytes(network: nn.Module) -> int:
    """Of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def bitsandbytes() -> Any:
    """The library; ValueError when it is not installed."""
    try:
        import bitsandbytes as library
    except ImportError as error:
        raise ValueError("4-bit weights need bitsandbytes: pip install bitsandbytes") from error
    return library
