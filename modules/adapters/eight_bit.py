"""Frozen linear layers in eight bits per weight: whole numbers, and one scale per output."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 127


class EightBitLinear(nn.Module):
    """A linear layer whose weight [out, in] is kept in int8; it does not learn, gradients pass through it.

    A weight is its code times its row's scale, which is that of the row's largest weight: the error is at
    most 1/254 of that. Codes and scales are buffers: sharding leaves them alone, every rank has them whole.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST
        self.register_buffer("codes", (weight / scales).round().to(torch.int8))  # [out, in]
        self.register_buffer("scales", scales)  # [out, 1], float32
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weight [out, in] that the codes stand for, computed anew at each look."""
        return scaled(self.codes, self.scales, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y: Tensor = _Product.apply(x, self.codes, self.scales)
        return y if self.bias is None else y + self.bias.to(x.dtype)


def scaled(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight [out, in] that codes and scales stand for."""
    return codes * scales.to(dtype)


class _Product(torch.autograd.Function):
    """x W^T that keeps the codes for the backward pass, not a weight of two or four times their size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scales)
        return F.linear(x, scaled(codes, scales, x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        codes, scales = ctx.saved_tensors
        return gradient @ scaled(codes, scales, gradient.dtype), None, None
