"""The U-Net that Stage B and Stage C share: levels of blocks, each level seen once down and once up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import (
    AttnBlock,
    Conditions,
    FeedForwardBlock,
    LayerNorm2d,
    ResBlock,
    TimestepBlock,
    resize,
    timestep_embedding,
)
from modules.network import Network, check_shape

Scalers = Sequence[tuple[nn.Module, nn.Module]]


class Level(NamedTuple):
    """The settings of one level of the U-Net."""

    letters: str
    nhead: int
    self_attn: bool
    dropout: float
    c: int
    kernel_size: int
    c_cond: int
    c_r: int
    t_conds: tuple[str, ...]

    def block(self, letter: str, c_skip: int) -> nn.Module:
        """The block that `letter` names."""
        if letter == "C":
            return ResBlock(self.c, c_skip, self.kernel_size, self.dropout)
        if letter == "T":
            return TimestepBlock(self.c, self.c_r, self.t_conds)
        if letter == "A":
            return AttnBlock(self.c, self.c_cond, self.nhead, self.self_attn, self.dropout)
        if letter == "F":
            return FeedForwardBlock(self.c, self.dropout)
        raise ValueError(f"level_config: expected the letters C, T, A and F, found {self.letters!r}")

    def blocks(self, count: int, c_skip: int = 0) -> nn.ModuleList:
        """`count` times the level's letters; only the first block sees the skip connection."""
        letters = self.letters * count
        return nn.ModuleList(self.block(letter, 0 if n else c_skip) for n, letter in enumerate(letters))

    def repeat_mappers(self, repeats: int) -> nn.ModuleList:
        """The 1x1 convolutions between the repeats of this level."""
        return nn.ModuleList(nn.Conv2d(self.c, self.c, 1) for _ in range(repeats - 1))


def per_level(name: str, value: Any, levels: int) -> list[Any]:
    """One value per level; a single value counts for all. ValueError when a list has another length."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [value] * levels
    if len(value) != levels:
        raise ValueError(f"{name}: expected {levels} values, one per level, found {list(value)}")
    return list(value)


class UNet(Network):
    """Levels of C (convolution), T (timestep), A (attention) and F (feed-forward) blocks.

    blocks, block_repeat: [down, first level first], [up, deepest level first]; a repeated level runs its
    blocks again after a 1x1 convolution. level_config: a string of block letters per level.
    scalers: the (down, up) modules between each level and the next; min_size: the least height and width,
    in latent pixels, that they can halve (smaller latents are padded).
    Sizes that a level does not divide are resized to the skip connection's on the way up.
    """

    def __init__(
        self,
        *,
        c_in: int,
        c_out: int,
        c_r: int,
        patch_size: int,
        c_cond: int,
        c_hidden: Sequence[int],
        nhead: Sequence[int] | int,
        blocks: Sequence[Sequence[int]],
        block_repeat: Sequence[Sequence[int]] | None,
        level_config: Sequence[str],
        kernel_size: int,
        dropout: Sequence[float] | float,
        self_attn: Sequence[bool] | bool,
        t_conds: Sequence[str],
        scalers: Scalers,
        min_size: int,
    ) -> None:
        super().__init__()
        depth = len(c_hidden)
        self.c_in, self.c_r, self.c_cond = c_in, c_r, c_cond
        self.patch_size, self.min_size, self.t_conds = patch_size, min_size, tuple(t_conds)
        columns = {"level_config": level_config, "nhead": nhead, "self_attn": self_attn, "dropout": dropout}
        rows = zip(*(per_level(name, value, depth) for name, value in columns.items()), strict=True)
        shared = (kernel_size, c_cond, c_r, self.t_conds)
        levels = [Level(*row, c, *shared) for row, c in zip(rows, c_hidden, strict=True)]
        down, up = (per_level("blocks", counts, depth) for counts in blocks)
        repeats = block_repeat or [[1] * depth, [1] * depth]
        down_repeats, up_repeats = (per_level("block_repeat", counts, depth) for counts in repeats)
        self.num_down_blocks = sum(down)

        patch, c = patch_size**2, c_hidden[0]
        self.embedding = nn.Sequential(
            nn.PixelUnshuffle(patch_size), nn.Conv2d(c_in * patch, c, 1), LayerNorm2d(c)
        )
        self.down_blocks, self.down_downscalers = nn.ModuleList(), nn.ModuleList([nn.Identity()])
        self.up_blocks, self.up_upscalers = nn.ModuleList(), nn.ModuleList()
        self.down_repeat_mappers, self.up_repeat_mappers = nn.ModuleList(), nn.ModuleList()
        for level, count, repeat in zip(levels, down, down_repeats, strict=True):
            self.down_blocks.append(level.blocks(count))
            self.down_repeat_mappers.append(level.repeat_mappers(repeat))
        for level, count, repeat in zip(reversed(levels), up, up_repeats, strict=True):
            self.up_blocks.append(level.blocks(count, c_skip=level.c if len(self.up_blocks) else 0))
            self.up_repeat_mappers.append(level.repeat_mappers(repeat))
        for (downscaler, _), level in zip(scalers, levels, strict=False):
            self.down_downscalers.append(nn.Sequential(LayerNorm2d(level.c), downscaler))
        for (_, upscaler), level in zip(reversed(scalers), reversed(levels), strict=False):
            self.up_upscalers.append(nn.Sequential(LayerNorm2d(level.c), upscaler))
        self.up_upscalers.append(nn.Identity())
        self.clf = nn.Sequential(LayerNorm2d(c), nn.Conv2d(c, c_out * patch, 1), nn.PixelShuffle(patch_size))

    def shard_units(self) -> list[nn.Module]:
        return list(chain.from_iterable((*self.down_blocks, *self.up_blocks)))

    def init_weights(self) -> None:
        """Xavier weights, zero biases; residual branches shrink with depth; timesteps and output start at 0."""
        for module in self.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for block in self.shard_units():
            if isinstance(block, TimestepBlock):
                for linear in block.children():
                    nn.init.zeros_(linear.weight)
            elif isinstance(block, ResBlock | FeedForwardBlock):
                with torch.no_grad():
                    block.channelwise[-1].weight.mul_(self.num_down_blocks**-0.5)
        nn.init.xavier_uniform_(self.embedding[1].weight, gain=0.02)
        nn.init.zeros_(self.clf[1].weight)

    def embed_timesteps(self, r: Tensor, companions: Mapping[str, Tensor | None]) -> Tensor:
        """Embed the noise condition and its companions (zero where None), all [B] in [0, 1].

        Returns [B, c_r * (1 + number of timestep conditions)] in float32. ValueError for a companion that
        this network was not built with.
        """
        unknown = [n for n, value in companions.items() if value is not None and n not in self.t_conds]
        if unknown:
            raise ValueError(f"{unknown[0]}: this network has the timestep conditions {list(self.t_conds)}")
        values = [r, *(companions.get(name) for name in self.t_conds)]
        values = [torch.zeros_like(r) if value is None else value for value in values]
        return torch.cat([timestep_embedding(value, self.c_r) for value in values], dim=1)

    def normalise_tokens(self, tokens: Tensor) -> Tensor:
        """Layer norm of condition tokens [B, N, c_cond], without parameters."""
        return F.layer_norm(tokens, (self.c_cond,), eps=1e-6)

    def embed(self, x: Tensor) -> Tensor:
        """Latents [B, c_in, H, W] -> features [B, c_hidden[0], H / patch_size, W / patch_size], rounded up."""
        check_shape("x", x, None, self.c_in, None, None)
        pads = [max(self.min_size - size, -size % self.patch_size) for size in x.shape[-2:]]
        if any(pads):
            x = F.pad(x, (0, pads[1], 0, pads[0]), mode="replicate")
        return self.embedding(x.to(self.embedding[1].weight.dtype))

    def run(self, x: Tensor, cond: Conditions, controls: Iterable[Tensor | None] = ()) -> Tensor:
        """Features -> features of the same size, through all levels down and up.

        controls: [B, C, h, w] or None for each convolution block, in the order in which they run.
        """
        control = iter(controls)
        skips: list[Tensor] = []
        for blocks, scale, repeats in zip(
            self.down_blocks, self.down_downscalers, self.down_repeat_mappers, strict=True
        ):
            x = run_level(scale(x), blocks, repeats, cond, control)
            skips.append(x)
        skip = skips.pop()  # the deepest level's own result, which nothing skips
        for blocks, scale, repeats in zip(
            self.up_blocks, self.up_upscalers, self.up_repeat_mappers, strict=True
        ):
            x = run_level(resize(x, *skip.shape[-2:]), blocks, repeats, cond._replace(skip=skip), control)
            x, skip = scale(x), skips.pop() if skips else skip
        return x

    def head(self, x: Tensor, like: Tensor) -> Tensor:
        """Features -> prediction with the height, width and number format of the latents `like`."""
        return self.clf(x)[..., : like.shape[-2], : like.shape[-1]].to(like.dtype)


def run_level(
    x: Tensor,
    blocks: nn.ModuleList,
    repeats: nn.ModuleList,
    cond: Conditions,
    controls: Iterator[Tensor | None],
) -> Tensor:
    """Run a level's blocks, and again after each of its repeat mappers."""
    for mapper in (None, *repeats):
        if mapper is not None:
            x = mapper(x)
        for block in blocks:
            control = next(controls, None) if block.takes_control else None
            x = block(x, cond._replace(control=control))
    return x
