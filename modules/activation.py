"""GELU that needs no memory of its own where nothing is learned."""

import torch
from torch import Tensor, nn


class GELU(nn.GELU):
    """torch's. Without gradients it takes the place of its input, which nothing else may use then.

    On a CPU the pages of a new tensor that no cache holds take longer than the function itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x and the result have the same shape."""
        if torch.is_grad_enabled():
            return super().forward(x)
        return torch.ops.aten.gelu_(x, approximate=self.approximate)
