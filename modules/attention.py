"""Multi-head attention on condition tokens, and its projections."""

import torch
from torch import Tensor, nn

from modules.dot_products import attend
from modules.mixing import scaled_up
from modules.products import Linear, is_plain, learns, product

KeysValues = tuple[Tensor, Tensor]
# Down which fp16 goes for the last projection. Values are about 1: much further down they would lose digits.
SCALE_IN_HALF = 16.0


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
        return product(x, self.weight, self.bias)


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
        self.out_proj = Linear(c, c)
        self.image_attention: nn.Module | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)

    def project(self, tokens: Tensor) -> KeysValues:
        """The keys and values of tokens [B, N, C], each [B, N, C]."""
        keys, values = self._project(tokens, 1)
        return keys, values

    def _project(self, x: Tensor, first: int) -> tuple[Tensor, ...]:
        """What the projections from this one on make of x [B, N, C], each [B, N, C]."""
        layers = (self.to_q, self.to_k, self.to_v)[first:]
        if all(is_plain(layer, PackedLinear) for layer in layers) and not learns(x, self.in_proj_weight):
            rows = slice(first * self.channels, None)
            return product(x, self.in_proj_weight[rows], self.in_proj_bias[rows]).chunk(len(layers), dim=-1)
        # On the way back in float32, to join the gradients takes longer than one product gains.
        return tuple(layer(x) for layer in layers)

    def forward(
        self, queries: Tensor, given: KeysValues, self_attn: bool = False, image_tokens: Tensor | None = None
    ) -> Tensor:
        """queries: [B, L, C]; given: what `project` made of tokens [B, N, C]; image_tokens: [B, M, c_image].

        self_attn: whether the queries see each other too.
        Returns [B, L, C]. In fp16 the result is float32, and may be beyond fp16.
        """
        k, v = (self._heads(y) for y in given)
        if self_attn:
            q, *own = (self._heads(y) for y in self._project(queries, 0))
            k, v = (torch.cat(pair, dim=2) for pair in zip(own, (k, v), strict=True))
        else:
            q = self._heads(self.to_q(queries))
        mixed = attend(q, k, v, self.dropout if self.training else 0.0)
        if self.image_attention is not None and image_tokens is not None:
            mixed = mixed + self.image_attention(q, image_tokens)
        mixed = mixed.transpose(1, 2).flatten(-2)
        if mixed.dtype == torch.float16:
            return scaled_up(self.out_proj, mixed / SCALE_IN_HALF, SCALE_IN_HALF)
        return self.out_proj(mixed)

    def _heads(self, y: Tensor) -> Tensor:
        """[B, N, C] -> [B, heads, N, C / heads]."""
        return y.unflatten(-1, (self.nhead, -1)).transpose(1, 2)
