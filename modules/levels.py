"""The levels of the U-Net: how many blocks of which kind each has."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from modules.blocks import AttnBlock, FeedForwardBlock, ResBlock, TimestepBlock


class ConditionSizes(NamedTuple):
    """c_cond: width of the condition tokens; c_r: of each timestep embedding; t_conds: r's companions."""

    c_cond: int
    c_r: int
    t_conds: tuple[str, ...]


class Level(NamedTuple):
    """One level: its block letters, how often they come, and how often the whole is run, down and up."""

    c: int
    letters: str
    nhead: int
    self_attn: bool
    dropout: float
    down_blocks: int
    up_blocks: int
    down_repeat: int
    up_repeat: int
    kernel_size: int

    def blocks(self, count: int, c_skip: int, sizes: ConditionSizes) -> nn.ModuleList:
        """`count` times the level's letters; only the first block can take the skip connection."""
        letters = self.letters * count
        return nn.ModuleList(self._block(kind, 0 if n else c_skip, sizes) for n, kind in enumerate(letters))

    def repeat_mappers(self, repeats: int) -> nn.ModuleList:
        """The 1x1 convolutions between the repeats of this level."""
        return nn.ModuleList(nn.Conv2d(self.c, self.c, 1) for _ in range(repeats - 1))

    def _block(self, kind: str, c_skip: int, sizes: ConditionSizes) -> nn.Module:
        if kind == "C":
            return ResBlock(self.c, c_skip, self.kernel_size, self.dropout)
        if kind == "T":
            return TimestepBlock(self.c, sizes.c_r, sizes.t_conds)
        if kind == "A":
            return AttnBlock(self.c, sizes.c_cond, self.nhead, self.self_attn, self.dropout)
        if kind == "F":
            return FeedForwardBlock(self.c, self.dropout)
        raise ValueError(f"level_config: expected the letters C, T, A and F, found {self.letters!r}")


def per_level(name: str, value: Any, levels: int) -> list[Any]:
    """One value per level; a single value counts for all. ValueError when a list has another length."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [value] * levels
    if len(value) != levels:
        raise ValueError(f"{name}: expected {levels} values, one per level, found {list(value)}")
    return list(value)


def make_levels(
    c_hidden: Sequence[int],
    nhead: Sequence[int] | int,
    blocks: Sequence[Sequence[int]],
    block_repeat: Sequence[Sequence[int]] | None,
    level_config: Sequence[str],
    kernel_size: int,
    dropout: Sequence[float] | float,
    self_attn: Sequence[bool] | bool,
) -> list[Level]:
    """The levels, first one first, from the published constructor arguments.

    blocks, block_repeat: [down, first level first], [up, deepest level first]; None repeats nothing.
    ValueError names the argument that does not give one value per level.
    """
    depth = len(c_hidden)
    down, up = (per_level("blocks", counts, depth) for counts in blocks)
    repeats = block_repeat or ([1] * depth, [1] * depth)
    down_repeat, up_repeat = (per_level("block_repeat", counts, depth) for counts in repeats)
    letters = per_level("level_config", level_config, depth)
    heads = per_level("nhead", nhead, depth)
    attends = per_level("self_attn", self_attn, depth)
    drop = per_level("dropout", dropout, depth)
    return [
        Level(
            c=c_hidden[n],
            letters=letters[n],
            nhead=heads[n],
            self_attn=attends[n],
            dropout=drop[n],
            down_blocks=down[n],
            up_blocks=up[-1 - n],
            down_repeat=down_repeat[n],
            up_repeat=up_repeat[-1 - n],
            kernel_size=kernel_size,
        )
        for n in range(depth)
    ]
