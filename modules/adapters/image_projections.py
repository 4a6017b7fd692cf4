"""From a picture's CLIP features to the image tokens that an IP-Adapter's attention reads.

Parameter names are those of the published IP-Adapters, under `image_proj.`.
"""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.network import check_shape
from modules.schema import nearest


class ImageProjection(nn.Module):
    """Base of the projections. reads: what it takes of the image encoder, the pooled embedding or patches.

    Called with features [B, N, c_image] (N = 1 where pooled); returns tokens [B, M, c_tokens].
    """

    reads: ClassVar[Literal["pooled", "patches"]]

    def start_at_zero(self) -> bool:
        """Make all tokens 0: the norm that ends the projection keeps zeros, and one step from there it gives
        them their full size. False, with nothing done, where tokens that are alike would stay alike.
        """
        return False

    def shard_units(self) -> list[nn.Module]:
        """The blocks that sharding, compilation and activation checkpointing work on."""
        return []


class PooledProjection(ImageProjection):
    """A linear layer to a few tokens, and their norm (Ye et al. 2023, 3.2.1)."""

    reads = "pooled"

    def __init__(self, c_image: int, c_tokens: int, num_tokens: int = 4) -> None:
        super().__init__()
        self.proj = nn.Linear(c_image, num_tokens * c_tokens)
        self.norm = nn.LayerNorm(c_tokens)

    def forward(self, features: Tensor) -> Tensor:
        check_shape("pooled image features", features, None, 1, self.proj.in_features)
        return self.norm(self.proj(features).unflatten(-1, (-1, *self.norm.normalized_shape))[:, 0])


class PatchProjection(ImageProjection):
    """Two linear layers and a norm on every patch: as many tokens as patches, each knowing its place."""

    reads = "patches"

    def __init__(self, c_image: int, c_tokens: int) -> None:
        super().__init__()
        layers = (nn.Linear(c_image, c_image), nn.GELU(), nn.Linear(c_image, c_tokens))
        self.proj = nn.Sequential(*layers, nn.LayerNorm(c_tokens))
        self.c_image = c_image

    def start_at_zero(self) -> bool:
        for parameter in self.proj[2].parameters():
            nn.init.zeros_(parameter)
        return True

    def forward(self, features: Tensor) -> Tensor:
        check_shape("image patches", features, None, None, self.c_image)
        return self.proj(features)


class ResamplerAttention(nn.Module):
    """Queries look at patches and at each other (Flamingo, Alayrac et al. 2022, fig. 5)."""

    def __init__(self, c: int, nhead: int) -> None:
        super().__init__()
        if c % nhead:
            raise ValueError(f"nhead: expected a divisor of the {c} channels of the resampler, found {nhead}")
        self.nhead = nhead
        self.norm1, self.norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.to_q = nn.Linear(c, c, bias=False)
        self.to_kv = nn.Linear(c, 2 * c, bias=False)
        self.to_out = nn.Linear(c, c, bias=False)

    def forward(self, patches: Tensor, queries: Tensor) -> Tensor:
        """patches: [B, N, c]; queries: [B, M, c]. Returns [B, M, c]."""
        patches, queries = self.norm1(patches), self.norm2(queries)
        k, v = self.to_kv(torch.cat((patches, queries), dim=1)).chunk(2, dim=-1)
        q, k, v = (y.unflatten(-1, (self.nhead, -1)).transpose(1, 2) for y in (self.to_q(queries), k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, heads, M, c / heads]
        return self.to_out(mixed.transpose(1, 2).flatten(-2))


class ResamplerLayer(nn.Sequential):
    """Attention and a feed-forward part, each with its residual."""

    def __init__(self, c: int, nhead: int) -> None:
        wide = nn.Linear(c, 4 * c, bias=False)
        narrow = nn.Linear(4 * c, c, bias=False)
        super().__init__(
            ResamplerAttention(c, nhead), nn.Sequential(nn.LayerNorm(c), wide, nn.GELU(), narrow)
        )

    def forward(self, patches: Tensor, queries: Tensor) -> Tensor:  # type: ignore[override]
        attention, feed_forward = self
        queries = queries + attention(patches, queries)
        return queries + feed_forward(queries)


class Resampler(ImageProjection):
    """Learned queries gather from the patches what is worth knowing: the "plus" variant.

    c_hidden: width inside; None: that of the tokens. Returns num_tokens tokens.
    """

    reads = "patches"

    def __init__(
        self,
        c_image: int,
        c_tokens: int,
        num_tokens: int = 16,
        c_hidden: int | None = None,
        depth: int = 4,
        nhead: int = 16,
    ) -> None:
        super().__init__()
        c = c_hidden or c_tokens
        self.latents = nn.Parameter(torch.empty(1, num_tokens, c))
        self.proj_in = nn.Linear(c_image, c)
        self.layers = nn.ModuleList(ResamplerLayer(c, nhead) for _ in range(depth))
        self.proj_out = nn.Linear(c, c_tokens)
        self.norm_out = nn.LayerNorm(c_tokens)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.latents, std=self.latents.shape[-1] ** -0.5)

    def start_at_zero(self) -> bool:
        for parameter in self.proj_out.parameters():
            nn.init.zeros_(parameter)
        return True

    def shard_units(self) -> list[nn.Module]:
        return [*self.layers]

    def forward(self, features: Tensor) -> Tensor:
        check_shape("image patches", features, None, None, self.proj_in.in_features)
        patches, queries = self.proj_in(features), self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            queries = layer(patches, queries)
        return self.norm_out(self.proj_out(queries))


PROJECTIONS: dict[str, type[ImageProjection]] = {
    "pooled": PooledProjection,
    "patches": PatchProjection,
    "resampler": Resampler,
}


def build_projection(spec: Mapping[str, Any], c_image: int, c_tokens: int) -> ImageProjection:
    """The projection called spec["name"], with the rest of spec as its own keywords.

    ValueError names the nearest valid name or keyword.
    """
    keywords = dict(spec)
    name = str(keywords.pop("name", None))
    if name not in PROJECTIONS:
        raise ValueError(f"image_proj.name: {name!r} is not known; {nearest(name, PROJECTIONS)}")
    known = list(inspect.signature(PROJECTIONS[name].__init__).parameters)[3:]  # after self and both widths
    for key in keywords:
        if key not in known:
            raise ValueError(
                f"image_proj of {name}: keyword {key!r} is not known; {nearest(key, ['name', *known])}"
            )
    return PROJECTIONS[name](c_image, c_tokens, **keywords)
