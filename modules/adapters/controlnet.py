"""ControlNet: turns a control picture into features that are added inside Stage C or Stage B.

Zhang et al. 2023 ("Adding Conditional Control to Text-to-Image Diffusion Models"), with a small bottleneck
of its own in the place of a copy of the network. Names and shapes of the parameters are those of the released
files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modules.blocks import resize
from modules.network import Network, check_shape, keeps_config, reset_all
from modules.schema import nearest
from modules.semantic_compressor import SemanticCompressor, init_backbone, make_backbone
from modules.unet import UNet

RELEASED_BLOCKS = (0, 4, 8, 12, 51, 55, 59, 63)
LARGE_WIDTHS = (16_384, 1024, 1280)  # of the released super-resolution network
LARGE_DEPTH = 8
SLOPE = 0.2  # of the leaky ReLUs

Controls = list[Tensor | None]


class AffineNorm2d(nn.LayerNorm):
    """Layer norm over the channels of [B, C, H, W], with parameters and eps 1e-5."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ControlResBlock(nn.Module):
    """Twice norm, GELU and 3x3 convolution; residual. x: [B, c, H, W]."""

    def __init__(self, c: int) -> None:
        super().__init__()
        halves = [(AffineNorm2d(c), nn.GELU(), nn.Conv2d(c, c, 3, padding=1)) for _ in range(2)]
        self.blocks = nn.Sequential(*halves[0], *halves[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.blocks(x)


class ControlNet(Network):
    """Control maps for the convolution blocks of a U-Net; fresh ones are zero, so they change nothing.

    c_in: channels of the control picture. c_proj: channels of the U-Net at the blocks. proj_blocks: numbers
    of the convolution blocks in running order, repeated ones counted again.
    bottleneck_mode: effnet for pictures (a grid of 1 / factor of their size), simple for grids of
    embeddings, large for latents (both keep the size).
    backbone, stochastic_depth: of effnet, as for SemanticCompressor.
    The first convolution of effnet pads its input only when c_in is 3. So the released weights were trained,
    and so every tool computes that loads such a file, since nothing in the file could say otherwise.
    """

    @keeps_config
    def __init__(
        self,
        c_in: int = 3,
        c_proj: int = 2048,
        proj_blocks: Sequence[int] = RELEASED_BLOCKS,
        bottleneck_mode: str = "effnet",
        backbone: str | Mapping[str, Any] = "efficientnet_v2_s",
        stochastic_depth: float = 0.2,
    ) -> None:
        super().__init__()
        check_blocks(proj_blocks)
        self.c_in, self.proj_blocks, self.factor = c_in, tuple(proj_blocks), 1
        if bottleneck_mode == "effnet":
            self.backbone, width, self.factor = effnet_bottleneck(c_in, backbone, stochastic_depth)
        elif bottleneck_mode == "simple":
            self.backbone, width = simple_bottleneck(c_in), c_in
        elif bottleneck_mode == "large":
            self.backbone, width = large_bottleneck(c_in), LARGE_WIDTHS[-1]
        else:
            known = nearest(bottleneck_mode, ("effnet", "simple", "large"))
            raise ValueError(f"bottleneck_mode: {bottleneck_mode!r} is not known; {known}")
        self.projections = nn.ModuleList(projection(width, c_proj) for _ in proj_blocks)
        self.init_weights()

    def init_weights(self) -> None:
        reset_all(self)
        if self.factor > 1:
            init_backbone(self.backbone)
        for project in self.projections:
            nn.init.zeros_(project.get_parameter("2.weight"))

    @torch.no_grad()
    def adopt_backbone(self, compressor: SemanticCompressor) -> None:
        """Start from the features of a trained compressor that has the same backbone.

        Channels that a picture lacks start from the mean of red, green and blue; all are scaled so that equal
        channels sum to what they did. Raises ValueError when the backbones differ.
        """
        weights = dict(compressor.backbone.state_dict())
        stem = weights["0.0.weight"]  # [c, 3, 3, 3]
        if self.c_in != stem.shape[1]:
            weights["0.0.weight"] = stem.mean(1, keepdim=True).repeat(1, self.c_in, 1, 1) * (3 / self.c_in)
        try:
            self.backbone.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise ValueError(f"the compressor's backbone is not this ControlNet's: {reason}") from error

    def shard_units(self) -> list[nn.Module]:
        parts = (*self.backbone, *self.projections)
        return [part for part in parts if next(part.parameters(), None) is not None]

    def forward(self, x: Tensor) -> Controls:
        """A control picture [B, c_in, H, W] -> for each block [B, c_proj, H / factor, W / factor] or None.

        Pictures are in [0, 1], embeddings and latents as they are. Sizes are rounded up. The list ends with
        the last block that gets something.
        """
        check_shape("control", x, None, self.c_in, None, None)
        features = self.backbone(x.to(next(self.backbone.parameters()).dtype))
        controls: Controls = [None] * (max(self.proj_blocks) + 1)
        for block, project in zip(self.proj_blocks, self.projections, strict=True):
            controls[block] = project(features)
        return controls


def check_blocks(blocks: Sequence[int]) -> None:
    """Raise ValueError for block numbers that are negative, repeated or none at all."""
    if not blocks or min(blocks) < 0 or len(set(blocks)) < len(blocks):
        raise ValueError(f"proj_blocks: expected different block numbers from 0, found {list(blocks)}")


def check_fits(controlnet: ControlNet, network: UNet) -> None:
    """Raise ValueError unless the network has all blocks that the ControlNet steers, as wide as its maps."""
    channels, c_proj = network.control_channels(), controlnet.config["c_proj"]
    for block in controlnet.proj_blocks:
        if block >= len(channels):
            raise ValueError(
                f"proj_blocks: expected numbers below {len(channels)}, the convolution blocks of the network"
                f" that is steered, found {block}"
            )
        if channels[block] != c_proj:
            raise ValueError(
                f"c_proj: expected {channels[block]}, the channels of convolution block {block}"
                f" of the network that is steered, found {c_proj}"
            )


def effnet_bottleneck(
    c_in: int, backbone: str | Mapping[str, Any], stochastic_depth: float
) -> tuple[nn.Sequential, int, int]:
    """An EfficientNetV2 for c_in channels, the number of channels it ends with, and its factor."""
    features, c_last, factor = make_backbone(backbone, stochastic_depth)
    if c_in != 3:
        width = features.get_parameter("0.0.weight").shape[0]
        features.get_submodule("0").register_module("0", nn.Conv2d(c_in, width, 3, stride=2, bias=False))
    return features, c_last, factor


def simple_bottleneck(c_in: int) -> nn.Sequential:
    """Two 3x3 convolutions, four times wider in between."""
    wide = nn.Conv2d(c_in, 4 * c_in, 3, padding=1)
    return nn.Sequential(wide, nn.LeakyReLU(SLOPE), nn.Conv2d(4 * c_in, c_in, 3, padding=1))


def large_bottleneck(c_in: int) -> nn.Sequential:
    """A wide expansion and eight residual blocks."""
    wide, inner, last = LARGE_WIDTHS
    ends = nn.Conv2d(c_in, wide, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(wide, inner, 1)
    blocks = [ControlResBlock(inner) for _ in range(LARGE_DEPTH)]
    return nn.Sequential(*ends, *blocks, nn.Conv2d(inner, last, 1))


def projection(c: int, c_proj: int) -> nn.Sequential:
    """From the bottleneck's channels to those of one block."""
    return nn.Sequential(
        nn.Conv2d(c, c, 1, bias=False), nn.LeakyReLU(SLOPE), nn.Conv2d(c, c_proj, 1, bias=False)
    )


def combine(controls: Sequence[Controls], scales: Sequence[float]) -> Controls:
    """The weighted sum of the control maps of several ControlNets, block by block.

    Scale 0 leaves one out. Maps of different sizes are brought to the largest. ValueError if numbers differ.
    """
    if len(controls) != len(scales):
        raise ValueError(f"expected one scale per ControlNet, found {len(scales)} for {len(controls)}")
    used = [(maps, scale) for maps, scale in zip(controls, scales, strict=True) if scale != 0]
    length = max((len(maps) for maps, _ in used), default=0)
    return [
        _weighted_sum([(maps[block], scale) for maps, scale in used if block < len(maps)])
        for block in range(length)
    ]


def _weighted_sum(terms: Sequence[tuple[Tensor | None, float]]) -> Tensor | None:
    present = [(control, scale) for control, scale in terms if control is not None]
    if not present:
        return None
    height = max(control.shape[-2] for control, _ in present)
    width = max(control.shape[-1] for control, _ in present)
    maps = [scale * resize(control, height, width) for control, scale in present]
    return sum(maps[1:], start=maps[0])
