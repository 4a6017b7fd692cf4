"""Frozen linear layers in four bits per weight (NF4: Dettmers et al. 2023, section 3), by bitsandbytes."""

from typing import Any

import torch
from torch import Tensor, nn

BLOCK_SIZE = 64  # weights that share one scale: 4.5 bits per weight in all


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


def bitsandbytes() -> Any:
    """The library; ValueError when it is not installed."""
    try:
        import bitsandbytes as library
    except ImportError as error:
        raise ValueError("4-bit weights need bitsandbytes: pip install bitsandbytes") from error
    return library
