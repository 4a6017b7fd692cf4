"""PiDiNet, an edge detector that convolves differences of pixels (Su et al. 2021).

Names and shapes of the parameters are those of the published full network; what it computes is derived from
the paper. It has not been compared with outputs of the released weights, which were not at hand: which stored
weight belongs to which radial difference, and ImageNet's normalisation of the input, are the least certain.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.network import Network, check_shape, keeps_config, reset_all
from modules.semantic_compressor import normalise_images

STAGES = ((60, 3), (120, 4), (240, 4), (240, 4))  # channels, blocks; the first convolution comes before them
SIDE_CHANNELS = 24
ATTENTION_CHANNELS = 4
DILATIONS = (5, 7, 9, 11)
CLOCKWISE_BEFORE = (3, 0, 1, 6, 4, 2, 7, 8, 5)  # of each place of a 3 x 3 kernel, the centre its own
OUTER_RING = (0, 2, 4, 10, 14, 20, 22, 24)  # places in a 5 x 5 kernel, in eight directions
INNER_RING = (6, 7, 8, 11, 13, 16, 17, 18)


def central(weight: Tensor) -> Tensor:
    """The kernel that convolves each pixel's difference to the centre (eq. 3); weight: [o, i, 3, 3]."""
    centre = F.pad(weight.sum((2, 3), keepdim=True), (1, 1, 1, 1))
    return weight - centre


def angular(weight: Tensor) -> Tensor:
    """The kernel of differences between neighbours on the ring around the centre (eq. 4)."""
    flat = weight.flatten(2)
    return (flat - flat[..., list(CLOCKWISE_BEFORE)]).view_as(weight)


def radial(weight: Tensor) -> Tensor:
    """The 5 x 5 kernel of differences between outer and inner ring (eq. 5); the first weight is unused."""
    kernel = weight.new_zeros(*weight.shape[:2], 25)
    rings = weight.flatten(2)[..., 1:]
    kernel[..., list(OUTER_RING)] = rings
    kernel[..., list(INNER_RING)] = -rings
    return kernel.view(*weight.shape[:2], 5, 5)


def plain(weight: Tensor) -> Tensor:
    """An ordinary convolution."""
    return weight


DIFFERENCES = (central, angular, radial, plain)  # in turn, layer by layer


class DifferenceConv2d(nn.Conv2d):
    """A 3x3 convolution of differences of pixels; `layer` counts them through the network."""

    def __init__(self, c_in: int, c_out: int, layer: int, groups: int = 1) -> None:
        super().__init__(c_in, c_out, 3, groups=groups, bias=False)
        self.kernel = DIFFERENCES[layer % len(DIFFERENCES)]

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel(self.weight)
        return F.conv2d(x, kernel, padding=kernel.shape[-1] // 2, groups=self.groups)


class DifferenceBlock(nn.Module):
    """Depthwise differences, ReLU, channel mixing, residual; the first of a stage halves the picture."""

    def __init__(self, c_in: int, c_out: int, layer: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        if halves:
            self.shortcut = nn.Conv2d(c_in, c_out, 1)
        self.conv1 = DifferenceConv2d(c_in, c_in, layer, groups=c_in)
        self.conv2 = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(x, 2) if self.halves else x
        mixed = self.conv2(self.conv1(x).relu())
        return mixed + (self.shortcut(x) if self.halves else x)


class DilatedContext(nn.Module):
    """Compact dilation convolutions: edges of several sizes (section 3.3)."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c, 1)
        for number, dilation in enumerate(DILATIONS, start=1):
            conv = nn.Conv2d(c, c, 3, padding=dilation, dilation=dilation, bias=False)
            self.register_module(f"conv2_{number}", conv)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x.relu())
        first, *others = (self.get_submodule(f"conv2_{number}")(x) for number in range(1, len(DILATIONS) + 1))
        return sum(others, start=first)


class SpatialAttention(nn.Module):
    """Compact spatial attention: background is weakened (section 3.3)."""

    def __init__(self, c: int, c_hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, c_hidden, 1)
        self.conv2 = nn.Conv2d(c_hidden, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(x.relu())).sigmoid()


class PiDiNet(Network):
    """Edges of pictures from four stages of difference convolutions."""

    @keeps_config
    def __init__(self) -> None:
        super().__init__()
        widths = [channels for channels, _ in STAGES]
        self.init_block = DifferenceConv2d(3, widths[0], layer=0)
        self.stages: list[list[str]] = []
        layer, c_before = 1, widths[0]
        for stage, (c, blocks) in enumerate(STAGES, start=1):
            names = [f"block{stage}_{number}" for number in range(1, blocks + 1)]
            for number, name in enumerate(names):
                self.register_module(name, DifferenceBlock(c_before, c, layer, stage > 1 and number == 0))
                layer, c_before = layer + 1, c
            self.stages.append(names)
        self.conv_reduces = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(SIDE_CHANNELS, 1, 1)}) for _ in widths
        )
        self.attentions = nn.ModuleList(SpatialAttention(SIDE_CHANNELS, ATTENTION_CHANNELS) for _ in widths)
        self.dilations = nn.ModuleList(DilatedContext(c, SIDE_CHANNELS) for c in widths)
        self.classifier = nn.Conv2d(len(STAGES), 1, 1)
        self.init_weights()

    def init_weights(self) -> None:
        reset_all(self)

    def shard_units(self) -> list[nn.Module]:
        return [self.get_submodule(name) for names in self.stages for name in names]

    def forward(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1], sides of at least 8 -> edges [B, 1, H, W] in [0, 1]."""
        check_shape("images", images, None, 3, None, None)
        x = self.init_block(normalise_images(images.to(self.classifier.weight.dtype)))
        sides = []
        for number, names in enumerate(self.stages):
            for name in names:
                x = self.get_submodule(name)(x)
            side = self.attentions[number](self.dilations[number](x))
            edges = self.conv_reduces[number].get_submodule("conv")(side)
            sides.append(F.interpolate(edges, images.shape[-2:], mode="bilinear"))
        return self.classifier(torch.cat(sides, dim=1)).sigmoid()
