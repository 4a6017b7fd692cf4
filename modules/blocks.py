"""The blocks that Stage B and Stage C are made of.

Every block is called as `block(x, cond)` with x [B, C, H, W]. Channel mixing runs on [B, H, W, C]; with
channels-last tensors the permutations around it are views, not copies.

Where the network computes in fp16, what its blocks add to (the stream) is float32: it grows with all that
they ever added. Only normalised copies of it are in fp16; blocks know by `Conditions.timestep`, which is.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.attention import Attention, KeysValues
from modules.mixing import ChannelMixer, channels_last_norm, narrowed, on_stream, stream
from modules.products import is_plain


class Conditions(NamedTuple):
    """What a block may look at besides its input.

    timestep: [B, c_r * (1 + number of timestep conditions)], embedded noise condition and its companions.
    tokens: [B, N, c_cond], normalised condition tokens that attention reads.
    skip: [B, c_skip, H, W] from the way down, or None. control: [B, C, h, w] added before the block, or None.
    image_tokens: [B, M, c_image], what an image adapter made of a picture, or None.
    projected: keys and values that the block's attention makes of `tokens`; mapped: [B, 2 C], what its
    timestep mappers make of `timestep`. None: computed anew.
    """

    timestep: Tensor
    tokens: Tensor
    skip: Tensor | None = None
    control: Tensor | None = None
    image_tokens: Tensor | None = None
    projected: KeysValues | None = None
    mapped: Tensor | None = None


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing of [B, C, h, w] whose corner pixels stay corner pixels."""
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)


class Block(nn.Module):
    """A block of the U-Net. takes_control: whether a control is added to its input."""

    takes_control = False

    def quieten(self, scale: float) -> None:
        """Change fresh weights so that a deep stack of such blocks starts quietly."""

    def project(self, tokens: Tensor) -> KeysValues | None:
        """What of the condition tokens [B, N, c_cond] stays the same as long as they do; None: nothing."""
        return None

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        raise NotImplementedError


class ResBlock(Block):
    """Depthwise convolution, norm, channel mixing (with the skip connection beside it), residual."""

    takes_control = True

    def __init__(self, c: int, c_skip: int = 0, kernel_size: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.c_skip = c_skip
        self.depthwise = nn.Conv2d(c, c, kernel_size, padding=kernel_size // 2, groups=c)
        self.channelwise = ChannelMixer(c + c_skip, c, dropout)

    @torch.no_grad()
    def quieten(self, scale: float) -> None:
        self.channelwise.get_parameter("4.weight").mul_(scale)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        if cond.control is not None:
            x = x + resize(cond.control, *x.shape[-2:]).to(x.dtype)
        mixed = channels_last_norm(on_stream(self.depthwise, x))  # [B, H, W, C]
        if self.c_skip and cond.skip is not None:
            mixed = torch.cat((mixed, cond.skip.permute(0, 2, 3, 1)), dim=-1)  # [B, H, W, C + c_skip]
            return x + on_stream(self.channelwise, mixed).permute(0, 3, 1, 2)
        return x + self.channelwise(narrowed(mixed, cond.timestep.dtype)).permute(0, 3, 1, 2)


class FeedForwardBlock(Block):
    """Norm, channel mixing, residual."""

    def __init__(self, c: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.channelwise = ChannelMixer(c, c, dropout)

    @torch.no_grad()
    def quieten(self, scale: float) -> None:
        self.channelwise.get_parameter("4.weight").mul_(scale)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        mixed = narrowed(channels_last_norm(x), cond.timestep.dtype)  # [B, H, W, C]
        return x + self.channelwise(mixed).permute(0, 3, 1, 2)


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

    def joined(self) -> tuple[Tensor, Tensor] | None:
        """A weight [2 C, width of `timestep`] and a bias [2 C] in the place of all mappers.

        None where one of them is no plain layer, or something waits for it or the block to be called.
        """
        mappers = [getattr(self, name) for name in self.names]
        if self._forward_pre_hooks or not all(is_plain(mapper, nn.Linear) for mapper in mappers):
            return None
        weight = torch.cat([stream(mapper.weight) for mapper in mappers], dim=1)
        return weight, torch.stack([stream(mapper.bias) for mapper in mappers]).sum(dim=0)

    def map(self, timestep: Tensor) -> Tensor:
        """timestep: as in `Conditions`. Returns [B, 2 C]; in the place of fp16 in float32."""
        parts = timestep.chunk(len(self.names), dim=1)
        mappers = (getattr(self, name) for name in self.names)
        mapped = [on_stream(mapper, stream(part)) for mapper, part in zip(mappers, parts, strict=True)]
        return sum(mapped[1:], start=mapped[0])

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        both = (self.map(cond.timestep) if cond.mapped is None else cond.mapped).to(x.dtype)
        scale, shift = both[:, :, None, None].chunk(2, dim=1)  # [B, C, 1, 1]
        return torch.addcmul(shift, x, 1 + scale)


class AttnBlock(Block):
    """Attention of the pixels on the condition tokens and, with self_attn, on each other; residual."""

    def __init__(self, c: int, c_cond: int, nhead: int, self_attn: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attn = self_attn
        self.attention = nn.ModuleDict({"attn": Attention(c, nhead, dropout)})
        self.kv_mapper = nn.Sequential(nn.SiLU(), nn.Linear(c_cond, c))

    def project(self, tokens: Tensor) -> KeysValues:
        """Their keys and values, each [B, N, C]."""
        return self._attention.project(self.kv_mapper(tokens))

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        height, width = x.shape[-2:]
        pixels = narrowed(channels_last_norm(x), cond.timestep.dtype).flatten(1, 2)  # [B, HW, C]
        given = self.project(cond.tokens) if cond.projected is None else cond.projected
        mixed = self._attention(pixels, given, self.self_attn, cond.image_tokens)
        return x + mixed.unflatten(1, (height, width)).permute(0, 3, 1, 2)

    @property
    def _attention(self) -> Attention:
        return self.attention["attn"]  # type: ignore[return-value]


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
