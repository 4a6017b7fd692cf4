"""Linear layers, which on a CPU call oneDNN by themselves where torch's own way is slower.

That copies the bias into the result first, applies an activation to it afterwards, and has products in fp32
made by MKL, which on AMD's processors are half as fast (docs/log.md).
"""

import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Made for torch's own compiler; a build without oneDNN has none.
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
LEAST = 2**24  # multiplications of one product; below, what is gained is less than a call costs


class Linear(nn.Linear):
    """torch's, by `product`."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b for x [..., in], weight [out, in] and bias [out]: [..., out]."""
    if not suits(x, weight):
        return F.linear(x, weight, bias)
    if learns(x, weight):
        return _Product.apply(x, weight, bias)
    return F.linear(x, weight, bias) if torch.is_grad_enabled() else onednn(x, weight, bias)


def with_gelu(layer: nn.Module, x: Tensor, gelu: nn.Module) -> Tensor:
    """gelu(layer(x)), in one go where nothing is learned and nobody else looks at the layer's result."""
    if is_plain(layer, Linear) and not torch.is_grad_enabled() and suits(x, layer.weight):  # type: ignore[arg-type]
        return onednn(x, layer.weight, layer.bias, "gelu")  # type: ignore[arg-type]
    return gelu(layer(x))


def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer is of this kind, and nobody waits for it to be called."""
    return isinstance(layer, kind) and not (layer._forward_hooks or layer._forward_pre_hooks)


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is to multiply them: on a CPU and in a number format that it is fast in, and not within
    autocast, which is to cast them, or a compiler that has a way back to make."""
    if x.device.type != "cpu" or x.dtype != weight.dtype or x.dtype not in SERVED:
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling():  # for any size at once
        return not torch.is_grad_enabled()
    return x.numel() * weight.shape[0] >= LEAST


def learns(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is to multiply them, and on the way back too: in bf16 torch's own is as fast there."""
    return torch.is_grad_enabled() and x.dtype == torch.float32 and suits(x, weight)


def served() -> frozenset[torch.dtype]:
    """The number formats in which oneDNN is the fastest on this processor."""
    if platform.machine().lower() not in ("x86_64", "amd64") or ONEDNN is None:
        return frozenset()
    bf16 = {torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()
    return frozenset(bf16 | ({torch.float32} if is_of_amd() else set()))


def is_of_amd() -> bool:
    """Whether AMD made the processor."""
    path = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (path.read_text(encoding="utf-8") if path.exists() else platform.processor())


SERVED = served()


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """activation(x W^T + b), without a gradient; activation: "none" or "gelu"."""
    return (opaque if torch.compiler.is_compiling() else multiplied)(x, weight, bias, activation)


def multiplied(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """The same, which the compiler refuses to take as it is: it knows this operation for constants only."""
    assert ONEDNN is not None
    found: Tensor = ONEDNN(x, weight, bias, activation, [], "none")
    return found


@torch.library.custom_op("kaskade::product", mutates_args=())
def opaque(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """The same as an operation that compilers do not look into."""
    return multiplied(x, weight, bias, activation)


@opaque.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class _Product(torch.autograd.Function):
    """x W^T + b by oneDNN, whose operation has no way back of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_result, of_rows = (each.reshape(-1, each.shape[-1]).t() for each in (gradient, x))
        of_x = onednn(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        of_weight = of_turned(of_result, of_rows) if ctx.needs_input_grad[1] else None
        of_bias = of_result.sum(dim=1) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias


def of_turned(x: Tensor, y: Tensor) -> Tensor:
    """x y^T for x [n, k] and y [m, k], both of which lie in memory by columns.

    oneDNN takes the second factor in any order. The first is laid out anew for it: the smaller of the two.
    """
    return onednn(x, y) if len(x) <= len(y) else onednn(y, x).t()
