"""The U-Net that Stage B and Stage C share: levels of blocks, each level seen once down and once up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.attention import KeysValues
from modules.blocks import Block, Conditions, TimestepBlock, resize, timestep_embedding
from modules.levels import ConditionSizes, Level
from modules.mixing import BehindNorm, LayerNorm2d, on_stream, stream
from modules.network import Network, check_shape, reset_all
from modules.timestep_maps import TimestepMaps


class Prepared(NamedTuple):
    """What conditions alone determine: the same at every step of a picture.

    tokens: [B, N, c_cond], normalised condition tokens. projected: what each block's attention makes of them.
    maps: of the timestep embeddings, by which all blocks are given theirs; None: they map by themselves.
    pictures: [B, C, h, w], features beside those of the latents, or None.
    """

    tokens: Tensor
    projected: Mapping[nn.Module, KeysValues] = {}
    maps: TimestepMaps | None = None
    pictures: Tensor | None = None


class Known(NamedTuple):
    """What blocks need not compute themselves, by block; see `Conditions`."""

    projected: Mapping[nn.Module, KeysValues]
    mapped: Mapping[nn.Module, Tensor]


class UNet(Network):
    """Levels of C (convolution), T (timestep), A (attention) and F (feed-forward) blocks.

    scalers: the (down, up) modules between each level and the next; min_size: the least height and width,
    in latent pixels, that they can halve (smaller latents are padded).
    Sizes that a level does not divide are resized to the skip connection's on the way up.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        scalers: Sequence[tuple[nn.Module, nn.Module]],
        sizes: ConditionSizes,
        c_in: int,
        c_out: int,
        patch_size: int,
        min_size: int,
    ) -> None:
        super().__init__()
        self.sizes, self.c_in, self.patch_size, self.min_size = sizes, c_in, patch_size, min_size
        self.num_down_blocks = sum(level.down_blocks for level in levels)
        self._build_ends(levels[0].c, c_out)
        self._build_down(levels, [scaler for scaler, _ in scalers])
        self._build_up(levels[::-1], [scaler for _, scaler in reversed(scalers)])

    def _build_ends(self, c: int, c_out: int) -> None:
        p = self.patch_size
        self.embedding = nn.Sequential(
            nn.PixelUnshuffle(p), nn.Conv2d(self.c_in * p * p, c, 1), LayerNorm2d(c)
        )
        self.clf = BehindNorm(LayerNorm2d(c), nn.Conv2d(c, c_out * p * p, 1), nn.PixelShuffle(p))

    def _build_down(self, levels: Sequence[Level], scalers: Sequence[nn.Module]) -> None:
        self.down_blocks = nn.ModuleList(level.blocks(level.down_blocks, 0, self.sizes) for level in levels)
        self.down_downscalers = nn.ModuleList([nn.Identity(), *scale_between(levels, scalers)])
        self.down_repeat_mappers = nn.ModuleList(level.repeat_mappers(level.down_repeat) for level in levels)

    def _build_up(self, levels: Sequence[Level], scalers: Sequence[nn.Module]) -> None:
        skips = [0, *(level.c for level in levels[1:])]
        self.up_blocks = nn.ModuleList(
            level.blocks(level.up_blocks, c_skip, self.sizes)
            for level, c_skip in zip(levels, skips, strict=True)
        )
        self.up_upscalers = nn.ModuleList([*scale_between(levels, scalers), nn.Identity()])
        self.up_repeat_mappers = nn.ModuleList(level.repeat_mappers(level.up_repeat) for level in levels)

    def shard_units(self) -> list[nn.Module]:
        return [*self._blocks()]

    def units_to_wait(self) -> list[nn.Module]:
        """The blocks whose weights may come when they are called, and go afterwards.

        Not those of the timestep: they are small, and `map_timesteps` needs all of them at once; one by one
        the products would have other last bits.
        """
        return [block for block in self._blocks() if not isinstance(block, TimestepBlock)]

    def control_channels(self) -> list[int]:
        """The channels of each convolution block in running order, repeated ones counted again."""
        down = zip(self.down_blocks, self.down_repeat_mappers, strict=True)
        up = zip(self.up_blocks, self.up_repeat_mappers, strict=True)
        return [
            block.get_parameter("depthwise.weight").shape[0]
            for blocks, mappers in chain(down, up)
            for _ in range(1 + len(mappers))  # type: ignore[arg-type]
            for block in blocks.children()
            if block.takes_control
        ]

    def _blocks(self) -> list[Block]:
        return list(chain.from_iterable((*self.down_blocks, *self.up_blocks)))  # type: ignore[arg-type]

    def init_weights(self) -> None:
        """Xavier weights, zero biases; residual branches shrink with depth; timesteps and output at 0."""
        reset_all(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self._blocks():
            block.quieten(self.num_down_blocks**-0.5)
        nn.init.xavier_uniform_(self.embedding.get_parameter("1.weight"), gain=0.02)
        nn.init.zeros_(self.clf.get_parameter("1.weight"))

    def embed_timesteps(self, r: Tensor, companions: Mapping[str, Tensor | None]) -> Tensor:
        """Embed the noise condition and its companions (zero where None), all [B] in [0, 1].

        Returns [B, c_r * (1 + number of timestep conditions)] in float32. ValueError for a companion that
        this network was not built with.
        """
        names = self.sizes.t_conds
        for name, value in companions.items():
            if value is not None and name not in names:
                raise ValueError(f"{name}: this network has the timestep conditions {list(names)}")
        given = [r, *(companions.get(name) for name in names)]
        values = [torch.zeros_like(r) if value is None else value for value in given]
        return torch.cat([timestep_embedding(value, self.sizes.c_r) for value in values], dim=1)

    def map_tokens(self, name: str, mapper: nn.Linear, embeddings: Tensor) -> Tensor:
        """Embeddings [B, S, c] or [B, c] -> condition tokens [B, S * tokens per embedding, c_cond]."""
        if embeddings.ndim == 2:
            embeddings = embeddings[:, None]
        check_shape(name, embeddings, None, None, mapper.in_features)
        mapped = mapper(embeddings.to(self.dtype))
        return mapped.reshape(len(embeddings), -1, self.sizes.c_cond)

    def normalise_tokens(self, tokens: Tensor) -> Tensor:
        """Layer norm of condition tokens [B, N, c_cond], without parameters."""
        return F.layer_norm(tokens, (self.sizes.c_cond,), eps=1e-6)

    def project(self, tokens: Tensor) -> dict[nn.Module, KeysValues]:
        """What each block makes of condition tokens alone, by block.

        A block that something waits for to be called (whose weights may come only then) is left out.
        """
        unwatched = (block for block in self._blocks() if not block._forward_pre_hooks)
        found = ((block, block.project(tokens)) for block in unwatched)
        return {block: projected for block, projected in found if projected is not None}

    def map_timesteps(self) -> TimestepMaps | None:
        """All blocks' timestep mappers as they are now; None where none can be joined."""
        return TimestepMaps.of(self._blocks())

    @property
    def dtype(self) -> torch.dtype:
        """The number format in which the network computes, but for products under autocast."""
        return self.embedding.get_parameter("1.bias").dtype  # weights may be gathered in that of the products

    def features_size(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the features of latents [B, c_in, H, W]."""
        height, width = self._padded(x)
        return height // self.patch_size, width // self.patch_size

    def _padded(self, x: Tensor) -> tuple[int, int]:
        height, width = (max(self.min_size, size + -size % self.patch_size) for size in x.shape[-2:])
        return height, width

    def embed(self, x: Tensor) -> Tensor:
        """Latents [B, c_in, H, W] -> features [B, C, H / patch_size, W / patch_size], rounded up."""
        check_shape("x", x, None, self.c_in, None, None)
        height, width = self._padded(x)
        padding = (0, width - x.shape[-1], 0, height - x.shape[-2])
        x = x.to(self.dtype)
        return self.embedding(F.pad(x, padding, mode="replicate") if any(padding) else x)

    def run(
        self,
        x: Tensor,
        timestep: Tensor,
        prepared: Prepared,
        controls: Iterable[Tensor | None] = (),
        image_tokens: Tensor | None = None,
    ) -> Tensor:
        """Features -> features of the same size, through all levels down and up.

        timestep, image_tokens: as in `Conditions`. controls: [B, C, h, w] or None for each convolution block,
        in the order in which they run.
        """
        cond = Conditions(timestep, prepared.tokens, image_tokens=image_tokens)
        mapped = {} if prepared.maps is None else prepared.maps(timestep)
        control, known = iter(controls), Known(prepared.projected, mapped)
        skips: list[Tensor] = []
        for level, scale in enumerate(self.down_downscalers):
            blocks, mappers = self.down_blocks[level], self.down_repeat_mappers[level]
            x = run_level(stream(scale(x)), blocks, mappers, cond, control, known)
            skips.append(x)
        for level, scale in enumerate(self.up_upscalers):
            skip = skips.pop()  # at the deepest level, where the first block takes none, x itself
            x, with_skip = resize(x, *skip.shape[-2:]), cond._replace(skip=skip)
            blocks, mappers = self.up_blocks[level], self.up_repeat_mappers[level]
            x = stream(scale(run_level(x, blocks, mappers, with_skip, control, known)))
        return x

    def head(self, x: Tensor, like: Tensor) -> Tensor:
        """Features -> prediction with the height, width and number format of the latents `like`."""
        return self.clf(x)[..., : like.shape[-2], : like.shape[-1]].to(like.dtype)


def scale_between(levels: Sequence[Level], scalers: Sequence[nn.Module]) -> list[nn.Module]:
    """Each scaler behind a norm of the level that it leaves."""
    return [BehindNorm(LayerNorm2d(a.c), scaler) for a, scaler in zip(levels, scalers, strict=False)]


def run_level(
    x: Tensor,
    blocks: nn.Module,
    repeat_mappers: nn.Module,
    cond: Conditions,
    controls: Iterator[Tensor | None],
    known: Known,
) -> Tensor:
    """Run a level's blocks, and again after each of its repeat mappers."""
    for mapper in (None, *repeat_mappers.children()):
        if mapper is not None:
            x = on_stream(mapper, x)
        for block in blocks.children():
            control = next(controls, None) if block.takes_control else None
            projected, mapped = known.projected.get(block), known.mapped.get(block)
            x = block(x, cond._replace(control=control, projected=projected, mapped=mapped))
    return x
