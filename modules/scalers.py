"""The scalers between Stage B's levels: convolutions of 2 x 2 pixels that lie side by side.

Each is a product of what lies at one place. As convolutions they have their weights laid out anew at every
call on a CPU, which took a tenth of a step of Stage B.
"""

import torch
from torch import Tensor, nn

from modules.products import product


class Halving(nn.Conv2d):
    """[B, c, H, W] -> [B, c_deeper, H / 2, W / 2]; odd sizes are rounded down."""

    def __init__(self, c: int, c_deeper: int) -> None:
        super().__init__(c, c_deeper, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        height, width = (size // 2 for size in x.shape[2:])
        places = x[..., : 2 * height, : 2 * width].unflatten(3, (width, 2)).unflatten(2, (height, 2))
        places = places.permute(0, 2, 4, 1, 3, 5).flatten(3)  # [B, h, w, 4 c]
        return as_pictures(product(places, self.weight.flatten(1)), self.bias)


class Doubling(nn.ConvTranspose2d):
    """[B, c_deeper, h, w] -> [B, c, 2 h, 2 w]."""

    def __init__(self, c_deeper: int, c: int) -> None:
        super().__init__(c_deeper, c, 2, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert output_size is None, "it is twice the input's"
        if x.device.type != "cpu":
            return super().forward(x)
        made = product(x.permute(0, 2, 3, 1), self.weight.flatten(1).t())  # [B, h, w, 4 c]
        made = made.unflatten(3, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)  # [B, h, 2, w, 2, c]
        return as_pictures(made.flatten(3, 4).flatten(1, 2), self.bias)


def as_pictures(x: Tensor, bias: Tensor | None) -> Tensor:
    """[B, H, W, C] and what is added to each channel -> [B, C, H, W], the channels side by side in memory.

    What convolutions give is no view of anything else, and so is this: compilers tell the two apart.
    """
    assert bias is not None
    pictures = x.permute(0, 3, 1, 2) + bias.to(x.dtype)[:, None, None]
    return pictures.contiguous(memory_format=torch.channels_last)
