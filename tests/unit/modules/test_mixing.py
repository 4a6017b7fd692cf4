"""Layer norm over channels."""

import torch
from torch import nn

from modules.mixing import LayerNorm2d


def test_layer_norm_is_over_channels() -> None:
    x = torch.randn(2, 8, 5, 6) * 3 + 1
    expected = nn.LayerNorm(8, eps=1e-6, elementwise_affine=False)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(LayerNorm2d(8)(x), expected)
