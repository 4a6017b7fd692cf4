"""Norms over channels, and the mixing of channels between them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from modules.dropout import Dropout

SMALLEST_ENERGY = 1e-6  # keeps the gradient of the root finite at zero
HALF_SCALE = 256.0  # down which fp16 goes where it would overflow; a power of two rounds nothing


def channels_last_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Layer norm over the channels of [B, C, H, W], without parameters; returns [B, H, W, C]."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), eps=eps)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of [B, C, H, W], without parameters."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps

    def forward(self, x: Tensor) -> Tensor:
        return channels_last_norm(x, self.eps).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Contrast between channels by their energy over the picture (ConvNeXt V2, eq. 1-3), on [B, H, W, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor, down: float = 1.0) -> Tensor:
        """x: [B, H, W, C]. down: what the result, of the same shape and number format, is divided by."""
        energy = channel_energy(x)
        contrast = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        scale = 1 + self.gamma * contrast
        shift = self.beta if down == 1 else self.beta / down
        return torch.addcmul(shift.to(x.dtype), x, (scale / down).to(x.dtype))


class _ChannelEnergy(torch.autograd.Function):
    """`channel_energy` without copies in float32, forward and backward."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=wide(x))
            return energy.clamp_min(SMALLEST_ENERGY)
        # There the norm is 15 times slower than the root of a sum of squares, and a sum in another number
        # format than its terms' copies them. Products add up in float32 whatever they multiply.
        if x.dtype == torch.bfloat16:
            ones = x.new_ones(len(x), 1, x.shape[1] * x.shape[2])
            energy = torch.bmm(ones, x.square().flatten(1, 2))[:, :, None].float()  # [B, 1, 1, C]
            return energy.sqrt().clamp_min(SMALLEST_ENERGY)
        return plain_energy(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, energy = ctx.saved_tensors
        return x * (gradient / energy).to(x.dtype)


def channel_energy(x: Tensor) -> Tensor:
    """The root of the sum of squares over a picture [B, H, W, C]: [B, 1, 1, C], in float32 at least.

    It is added up in float32: bf16 would lose small terms, fp16 overflow.
    """
    # A compiler puts the cast into the loop that adds up.
    return plain_energy(x) if torch.compiler.is_compiling() else _ChannelEnergy.apply(x)


def plain_energy(x: Tensor) -> Tensor:
    """The same by its formula."""
    energy = x.to(wide(x)).square().sum(dim=(1, 2), keepdim=True)
    return energy.clamp_min(SMALLEST_ENERGY**2).sqrt()


def wide(x: Tensor) -> torch.dtype:
    """The number format of x, or float32 where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


class ChannelMixer(nn.Sequential):
    """Two linear layers, four times wider in between, on [B, H, W, C].

    In fp16 the result is float32. Its input there comes from a layer norm, so that the first layer gives no
    more than a row of weights is long, times the root of the channels. What outgrows fp16 is the contrast
    between channels, which the norm in between adds, and the second layer's result: both are computed on a
    smaller scale.
    """

    def __init__(self, c_in: int, c_out: int, dropout: float) -> None:
        wide = 4 * c_out
        norm, drop = GlobalResponseNorm(wide), Dropout(dropout)
        super().__init__(nn.Linear(c_in, wide), nn.GELU(), norm, drop, nn.Linear(wide, c_out))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float16:
            return super().forward(x)
        expand, activate, norm, drop, reduce = self
        y = drop(norm(activate(expand(x)), down=HALF_SCALE))
        # Through the layer itself, that adapters beside it count.
        y = functional_call(reduce, {"bias": reduce.get_parameter("bias") / HALF_SCALE}, (y,))
        return y.float() * HALF_SCALE


class BehindNorm(nn.Sequential):
    """A norm over channels, and layers that compute with what it gives in their own number format."""

    def forward(self, x: Tensor) -> Tensor:
        norm, *layers = self
        x = narrowed(norm(x), next(self.parameters()).dtype)
        for layer in layers:
            x = layer(x)
        return x


def stream(x: Tensor) -> Tensor:
    """What blocks add to: in float32 in the place of fp16, for it grows beyond fp16's numbers."""
    return x.float() if x.dtype == torch.float16 else x


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Normalised features of the stream in fp16, where the network computes in it."""
    return x.to(dtype) if dtype == torch.float16 else x


def on_stream(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's result for the stream itself, which is not normalised: in float32 in the place of fp16."""
    weights = dict(layer.named_parameters()) if x.dtype == torch.float32 else {}
    if not any(weight.dtype == torch.float16 for weight in weights.values()):
        return layer(x)
    return functional_call(layer, {name: weight.float() for name, weight in weights.items()}, (x,))
