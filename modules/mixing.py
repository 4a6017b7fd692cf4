"""Norms over channels, and the mixing of channels between them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_ENERGY = 1e-6  # keeps the gradient of the root finite at zero


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

    def forward(self, x: Tensor) -> Tensor:
        energy = channel_energy(x)
        contrast = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        return torch.addcmul(self.beta.to(x.dtype), x, (1 + self.gamma * contrast).to(x.dtype))


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


def channel_mixer(c_in: int, c_out: int, dropout: float) -> nn.Sequential:
    """Two linear layers, four times wider in between, on [B, H, W, C]."""
    c_wide = 4 * c_out
    layers = (nn.Linear(c_in, c_wide), nn.GELU(), GlobalResponseNorm(c_wide), nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(c_wide, c_out))
