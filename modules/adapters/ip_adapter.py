"""IP-Adapter: pictures as prompts, read by attention of their own (Ye et al. 2023, arXiv:2308.06721)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.adapters.image_projections import ImageProjection, build_projection
from modules.attention import Attention
from modules.blocks import AttnBlock
from modules.network import Network, check_shape, keeps_config, reset_all

POOLED = {"name": "pooled", "num_tokens": 4}


class ImageAttention(nn.Module):
    """What one attention block finds in image tokens: the second term of equation 5, before its projection.

    scale: its weight beside what the block finds in the text; 0 leaves the block as it was.
    """

    def __init__(self, c_tokens: int, c: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(c_tokens, c, bias=False)
        self.to_v_ip = nn.Linear(c_tokens, c, bias=False)
        self.scale = 1.0

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """queries: [B, heads, L, C / heads]; tokens: [B, M, c_tokens]. Returns a tensor like queries."""
        tokens = tokens.to(self.to_k_ip.weight.dtype)
        projected = (self.to_k_ip(tokens), self.to_v_ip(tokens))
        k, v = (y.unflatten(-1, (queries.shape[1], -1)).transpose(1, 2).to(queries) for y in projected)
        return self.scale * F.scaled_dot_product_attention(queries, k, v)


class IPAdapter(Network):
    """Image features -> image tokens, and the attention to them of each attention block of a Stage C.

    channels: of those blocks, in running order (`attention_channels`); the default fits the released 3.6 B.
    c_image: width of the image features; c_tokens: of the tokens. image_proj: {name: pooled | patches |
    resampler, …}, see `image_projections`.
    """

    image_proj: ImageProjection

    @keeps_config
    def __init__(
        self,
        channels: Sequence[int] = (2048,) * 64,
        c_image: int = 768,
        c_tokens: int = 2048,
        image_proj: Mapping[str, Any] = POOLED,
    ) -> None:
        super().__init__()
        self.image_proj = build_projection(image_proj, c_image, c_tokens)
        self.ip_adapter = nn.ModuleList(ImageAttention(c_tokens, c) for c in channels)
        self._attached: list[Attention] = []
        self.init_weights()

    def init_weights(self) -> None:
        """Values start at 0: a fresh adapter changes nothing."""
        reset_all(self)
        for attention in self._attentions:
            nn.init.xavier_uniform_(attention.to_k_ip.weight)
            nn.init.zeros_(attention.to_v_ip.weight)

    @torch.no_grad()
    def read_as_text(self, network: nn.Module) -> None:
        """Begin with the keys and values that `network` makes of its own tokens (Ye et al. 2023, 3.2.2).

        Then a picture only has to learn to speak as a text does. What starts at 0 is the image tokens; or the
        values still, where the tokens cannot. ValueError unless image tokens are as wide as text tokens.
        """
        self._check_fits(network)
        with_values = self.image_proj.start_at_zero()
        for block, attention in zip(attention_blocks(network), self._attentions, strict=True):
            projection: Any = block.kv_mapper[1]  # may be in few bits, its weight then no parameter
            mapper, texts = projection.weight.float(), attention_of(block)
            check_shape("ip_adapter: mapper of the text's tokens", mapper, None, self.config["c_tokens"])
            attention.to_k_ip.weight.copy_(texts.to_k.weight.float() @ mapper)
            if with_values:
                attention.to_v_ip.weight.copy_(texts.to_v.weight.float() @ mapper)

    def shard_units(self) -> list[nn.Module]:
        return [self.image_proj, *self.ip_adapter]

    @property
    def reads(self) -> str:
        """Which features of the image encoder it takes: pooled or patches."""
        return self.image_proj.reads

    @property
    def scale(self) -> float:
        """The weight of the picture beside the text, 1 as trained; at 0 the network is what it was."""
        return self._attentions[0].scale

    @scale.setter
    def scale(self, value: float) -> None:
        for attention in self._attentions:
            attention.scale = value

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, N, c_image] of pictures -> image tokens [B, M, c_tokens]; of zeros: of no picture."""
        return self.image_proj(features.to(next(self.image_proj.parameters()).dtype))

    def attach(self, network: nn.Module) -> None:
        """Let the attention blocks of `network` read image tokens; none of its own weights change.

        ValueError when the blocks have other widths than the adapter was made for, or have an adapter, or
        this one is attached already.
        """
        if self._attached:
            raise ValueError("ip_adapter: already attached to a network; detach it first")
        self._check_fits(network)
        places = [attention_of(block) for block in attention_blocks(network)]
        if any(place.image_attention is not None for place in places):
            raise ValueError("ip_adapter: the network has an image adapter already; detach that one first")
        for place, attention in zip(places, self.ip_adapter, strict=True):
            place.image_attention = attention
        self._attached = places

    def detach(self) -> None:
        """Leave the network as it was before `attach`."""
        for place in self._attached:
            place.image_attention = None
        self._attached = []

    @property
    def _attentions(self) -> list[ImageAttention]:
        return list(self.ip_adapter)  # type: ignore[arg-type]

    def _check_fits(self, network: nn.Module) -> None:
        wanted, found = self.config["channels"], attention_channels(network)
        if found != wanted:
            raise ValueError(
                f"ip_adapter: made for {len(wanted)} attention blocks of {sorted(set(wanted))} channels; "
                f"this network has {len(found)} of {sorted(set(found))}"
            )


def attention_blocks(network: nn.Module) -> list[AttnBlock]:
    """The blocks of a network in which it attends to tokens, in running order."""
    return [module for module in network.modules() if isinstance(module, AttnBlock)]


def attention_channels(network: nn.Module) -> list[int]:
    """How many channels each of them has."""
    return [attention_of(block).channels for block in attention_blocks(network)]


def attention_of(block: AttnBlock) -> Attention:
    """The part of a block that projects and attends."""
    return block.attention["attn"]  # type: ignore[return-value]


def join_tokens(tokens: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """The image tokens [B, M, c] of several pictures as those of one prompt.

    Without weights they stand side by side, [B, sum of M, c], and attention chooses among them. With weights,
    one per picture, they are summed: [B, M, c]. ValueError unless there are as many weights as pictures.
    """
    if weights is None:
        return torch.cat(list(tokens), dim=1)
    if len(weights) != len(tokens):
        raise ValueError(f"weights: expected {len(tokens)}, one per picture, found {len(weights)}")
    return torch.stack([weight * part for weight, part in zip(weights, tokens, strict=True)]).sum(dim=0)
