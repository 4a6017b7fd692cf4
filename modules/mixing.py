"""Norms over channels, and the mixing of channels between them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from modules.dropout import Dropout
from modules.products import Linear, with_gelu
from modules.response_norm import GlobalResponseNorm

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
        super().__init__(Linear(c_in, wide), nn.GELU(), norm, drop, Linear(wide, c_out))

    def forward(self, x: Tensor) -> Tensor:
        expand, activate, norm, drop, reduce = self
        x = with_gelu(expand, x, activate)
        if x.dtype != torch.float16:
            return reduce(drop(norm(x)))
        return scaled_up(reduce, drop(norm(x, down=HALF_SCALE)), HALF_SCALE)


class BehindNorm(nn.Sequential):
    """A norm over channels, and layers behind it; in fp16 both are on the stream, that nothing overflows."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = on_stream(layer, x)
        return x


def stream(x: Tensor) -> Tensor:
    """What blocks add to: in float32 in the place of fp16, for it grows beyond fp16's numbers."""
    return x.float() if x.dtype == torch.float16 else x


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Normalised features of the stream in fp16, where the network computes in it."""
    return x.to(dtype) if dtype == torch.float16 else x


def scaled_up(layer: nn.Module, x: Tensor, scale: float) -> Tensor:
    """A linear layer's result for scale * x, computed in fp16 on the smaller scale of x; in float32."""
    # Through the layer itself, that adapters beside it count.
    y = functional_call(layer, {"bias": layer.get_parameter("bias") / scale}, (x,))
    return y.float() * scale


def on_stream(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's result for the stream itself, which is not normalised: in float32 in the place of fp16."""
    weights = dict(layer.named_parameters()) if x.dtype == torch.float32 else {}
    if not any(weight.dtype == torch.float16 for weight in weights.values()):
        return layer(x)
    return functional_call(layer, {name: weight.float() for name, weight in weights.items()}, (x,))
