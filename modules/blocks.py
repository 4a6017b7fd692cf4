"""The blocks that Stage B and Stage C are made of.

Every block is called as `block(x, cond)` with x [B, C, H, W]. Channel mixing runs on [B, H, W, C]; with
channels-last tensors the permutations around it are views, not copies.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conditions(NamedTuple):
    """What a block may look at besides its input.

    timestep: [B, c_r * (1 + number of timestep conditions)], embedded noise condition and its companions.
    tokens: [B, N, c_cond], normalised condition tokens that attention reads.
    skip: [B, c_skip, H, W] from the way down, or None. control: [B, C, h, w] added before the block, or None.
    image_tokens: [B, M, c_image], what an image adapter made of a picture, or None.
    """

    timestep: Tensor
    tokens: Tensor
    skip: Tensor | None = None
    control: Tensor | None = None
    image_tokens: Tensor | None = None


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing of [B, C, h, w] whose corner pixels stay corner pixels."""
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)


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
        # The sum over a whole picture is taken in float32: bfloat16 would lose small terms. Written out, it
        # is 15 times faster on a CPU than vector_norm; 1e-12 keeps the root's gradient finite at zero.
        energy = (x.square().sum(dim=(1, 2), keepdim=True, dtype=torch.float32) + 1e-12).sqrt()
        contrast = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        return torch.addcmul(self.beta.to(x.dtype), x, (1 + self.gamma * contrast).to(x.dtype))


def channel_mixer(c_in: int, c_out: int, dropout: float) -> nn.Sequential:
    """Two linear layers, four times wider in between, on [B, H, W, C]."""
    wide = 4 * c_out
    layers = (nn.Linear(c_in, wide), nn.GELU(), GlobalResponseNorm(wide), nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(wide, c_out))


class Block(nn.Module):
    """A block of the U-Net. takes_control: whether a control is added to its input."""

    takes_control = False

    def quieten(self, scale: float) -> None:
        """Change fresh weights so that a deep stack of such blocks starts quietly."""

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        raise NotImplementedError


class ResBlock(Block):
    """Depthwise convolution, norm, channel mixing (with the skip connection beside it), residual."""

    takes_control = True

    def __init__(self, c: int, c_skip: int = 0, kernel_size: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.c_skip = c_skip
        self.depthwise = nn.Conv2d(c, c, kernel_size, padding=kernel_size // 2, groups=c)
        self.channelwise = channel_mixer(c + c_skip, c, dropout)

    @torch.no_grad()
    def quieten(self, scale: float) -> None:
        self.channelwise.get_parameter("4.weight").mul_(scale)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        if cond.control is not None:
            x = x + resize(cond.control, *x.shape[-2:]).to(x.dtype)
        mixed = channels_last_norm(self.depthwise(x))  # [B, H, W, C]
        if self.c_skip and cond.skip is not None:
            mixed = torch.cat((mixed, cond.skip.permute(0, 2, 3, 1)), dim=-1)  # [B, H, W, C + c_skip]
        return x + self.channelwise(mixed).permute(0, 3, 1, 2)


class FeedForwardBlock(Block):
    """Norm, channel mixing, residual."""

    def __init__(self, c: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.channelwise = channel_mixer(c, c, dropout)

    @torch.no_grad()
    def quieten(self, scale: float) -> None:
        self.channelwise.get_parameter("4.weight").mul_(scale)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        return x + self.channelwise(channels_last_norm(x)).permute(0, 3, 1, 2)


class TimestepBlock(Block):
    """Scale and shift every channel by the embedded noise condition and its companions."""

    def __init__(self, c: int, c_timestep: int, t_conds: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.names = ("mapper", *(f"mapper_{name}" for name in t_conds))
        for name in self.names:
            setattr(self, name, nn.Linear(c_timestep, 2 * c))

    def quieten(self, scale: float) -> None:
        for name in self.names:
            nn.init.zeros_(getattr(self, name).weight)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        parts = cond.timestep.chunk(len(self.names), dim=1)
        mapped = [getattr(self, name)(part) for name, part in zip(self.names, parts, strict=True)]
        scale, shift = sum(mapped)[:, :, None, None].chunk(2, dim=1)  # [B, C, 1, 1]
        return torch.addcmul(shift, x, 1 + scale)


class PackedLinear(nn.Module):
    """One of the projections that Attention keeps packed in one weight: a linear layer without its own.

    It gives the projection a name that hooks can be attached to, and a place that another layer can take.
    """

    _owner: "Attention"

    def __init__(self, owner: "Attention", index: int) -> None:
        super().__init__()
        self.in_features = self.out_features = owner.channels
        self._rows = slice(index * owner.channels, (index + 1) * owner.channels)
        self.__dict__["_owner"] = owner  # past nn.Module, which would register it as a child

    @property
    def weight(self) -> Tensor:
        """[C, C], a view into the packed weight."""
        return self._owner.in_proj_weight[self._rows]

    @property
    def bias(self) -> Tensor:
        """[C], a view into the packed bias."""
        return self._owner.in_proj_bias[self._rows]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Multi-head attention of queries on tokens; parameters named and packed as in nn.MultiheadAttention.

    image_attention: None, or a module that is called with the queries [B, heads, L, C / heads] and image
    tokens [B, M, c_image]; its result, shaped like the queries, is added to what the heads found.
    """

    def __init__(self, c: int, nhead: int, dropout: float = 0.0) -> None:
        super().__init__()
        if nhead < 1 or c % nhead:
            raise ValueError(f"nhead: expected a divisor of the {c} channels of its level, found {nhead}")
        self.channels, self.nhead, self.dropout = c, nhead, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * c, c))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * c))
        self.to_q, self.to_k, self.to_v = (PackedLinear(self, index) for index in range(3))
        self.out_proj = nn.Linear(c, c)
        self.image_attention: nn.Module | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)

    def forward(self, queries: Tensor, tokens: Tensor, image_tokens: Tensor | None = None) -> Tensor:
        """queries: [B, L, C]; tokens: [B, N, C]; image_tokens: [B, M, c_image]. Returns [B, L, C]."""
        projected = (self.to_q(queries), self.to_k(tokens), self.to_v(tokens))
        q, k, v = (y.unflatten(-1, (self.nhead, -1)).transpose(1, 2) for y in projected)  # [B, heads, L, c]
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        if self.image_attention is not None and image_tokens is not None:
            mixed = mixed + self.image_attention(q, image_tokens)
        return self.out_proj(mixed.transpose(1, 2).flatten(-2))


class AttnBlock(Block):
    """Attention of the pixels on the condition tokens and, with self_attn, on each other; residual."""

    def __init__(self, c: int, c_cond: int, nhead: int, self_attn: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attn = self_attn
        self.attention = nn.ModuleDict({"attn": Attention(c, nhead, dropout)})
        self.kv_mapper = nn.Sequential(nn.SiLU(), nn.Linear(c_cond, c))

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        height, width = x.shape[-2:]
        pixels = channels_last_norm(x).flatten(1, 2)  # [B, HW, C]
        tokens = self.kv_mapper(cond.tokens)  # [B, N, C]
        if self.self_attn:
            tokens = torch.cat((pixels, tokens.to(pixels.dtype)), dim=1)  # [B, HW + N, C]
        mixed = self.attention["attn"](pixels, tokens, cond.image_tokens)
        return x + mixed.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class UpDownBlock2d(nn.Module):
    """1x1 convolution with bilinear halving after it, or doubling before it, where `enabled`."""

    def __init__(self, c_in: int, c_out: int, mode: str, enabled: bool = True) -> None:
        super().__init__()
        if mode not in ("up", "down"):
            raise ValueError(f"mode: expected up or down, found {mode!r}")
        scale = nn.Upsample(scale_factor=2 if mode == "up" else 0.5, mode="bilinear", align_corners=True)
        layers = [nn.Conv2d(c_in, c_out, 1), scale if enabled else nn.Identity()]
        self.blocks = nn.ModuleList(layers if mode == "down" else layers[::-1])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def timestep_embedding(values: Tensor, channels: int, max_positions: float = 10_000.0) -> Tensor:
    """Sines and cosines of geometrically spaced frequencies ("Attention Is All You Need", 3.5).

    values: [B] in [0, 1]. Returns [B, channels] in float32; an odd last channel is zero.
    """
    half = channels // 2
    steps = torch.arange(half, device=values.device, dtype=torch.float32)
    frequencies = torch.exp(steps * (-math.log(max_positions) / max(half - 1, 1)))
    angles = (values.float() * max_positions)[:, None] * frequencies
    return F.pad(torch.cat((angles.sin(), angles.cos()), dim=1), (0, channels % 2))
