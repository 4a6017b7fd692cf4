"""The timestep mappers of a whole network as one product.

Each of them alone takes longer to call than to compute, and a network has a hundred.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.blocks import TimestepBlock


@dataclass(frozen=True)
class TimestepMaps:
    """What timestep blocks make of the embedded noise condition and its companions.

    widths: 2 C of each block. weight: [sum of them, width of the embeddings], bias: [sum of them]; copies of
    the mappers', which count for as long as no weight changes.
    """

    widths: Mapping[nn.Module, int]
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, blocks: Iterable[nn.Module]) -> "TimestepMaps | None":
        """Of the timestep blocks among these; one that has an adapter beside it, say, maps by itself."""
        joined = ((block, block.joined()) for block in blocks if isinstance(block, TimestepBlock))
        layers: dict[nn.Module, tuple[Tensor, Tensor]] = {block: layer for block, layer in joined if layer}
        if not layers:
            return None
        weights, biases = zip(*layers.values(), strict=True)
        widths = {block: len(bias) for block, (_, bias) in layers.items()}
        return cls(widths, torch.cat(weights), torch.cat(biases))

    def __call__(self, timestep: Tensor) -> dict[nn.Module, Tensor]:
        """timestep: as in `Conditions`. Returns [B, 2 C] by block; in the place of fp16 in float32."""
        mapped = F.linear(timestep.to(self.weight.dtype), self.weight, self.bias)
        return dict(zip(self.widths, mapped.split([*self.widths.values()], dim=1), strict=True))
