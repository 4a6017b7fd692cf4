"""The semantic compressor: an EfficientNetV2 that turns pictures into small latents."""

import functools
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from modules.network import Network, check_shape, keeps_config, reset_all
from modules.schema import convert, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BLOCKS = ("fused", "mbconv")
# EfficientNetV2-S (Tan and Le 2021, table 4): block, expansion, kernel, stride, c_in, c_out, layers.
EFFICIENTNET_V2_S: dict[str, Any] = {
    "stages": [
        ["fused", 1, 3, 1, 24, 24, 2],
        ["fused", 4, 3, 2, 24, 48, 4],
        ["fused", 4, 3, 2, 48, 64, 4],
        ["mbconv", 4, 3, 2, 64, 128, 6],
        ["mbconv", 6, 3, 1, 128, 160, 9],
        ["mbconv", 6, 3, 2, 160, 256, 15],
    ],
    "c_last": 1280,
}


def normalise_images(images: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] -> the same with ImageNet's mean and deviation taken out."""
    mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = images.new_tensor(IMAGENET_STD)[:, None, None]
    return (images - mean) / std


def check_backbone(backbone: str | Mapping[str, Any]) -> None:
    """Raise ValueError, naming the key, for what is neither efficientnet_v2_s nor stages of one's own."""
    if isinstance(backbone, str):
        if backbone != "efficientnet_v2_s":
            raise ValueError(f"backbone: expected efficientnet_v2_s or stages, found {backbone!r}")
        return
    for key in backbone:
        if key not in EFFICIENTNET_V2_S:
            raise ValueError(f"backbone.{key}: unknown key; {nearest(str(key), EFFICIENTNET_V2_S)}")
    for key in EFFICIENTNET_V2_S:
        if key not in backbone:
            raise ValueError(f"backbone.{key}: missing; expected stages and c_last")
    convert(int, backbone["c_last"], "backbone.c_last")
    check_stages(convert(list[list[int | str]], backbone["stages"], "backbone.stages"))


def check_stages(stages: list[list[Any]]) -> None:
    """Raise ValueError for stages that are malformed or do not follow on one another."""
    for number, stage in enumerate(stages):
        if len(stage) != 7 or stage[0] not in BLOCKS:
            raise ValueError(
                "backbone.stages: expected [fused|mbconv, expansion, kernel, stride, c_in, c_out, layers], "
                f"found {stage}"
            )
        if not all(isinstance(number, int) for number in stage[1:]):
            raise ValueError(f"backbone.stages: expected whole numbers, found {stage}")
        if stage[4] % 8 or stage[5] % 8:
            raise ValueError(f"backbone.stages: channels must be multiples of 8, found {stage}")
        if number and stage[4] != stages[number - 1][5]:
            raise ValueError(f"backbone.stages: c_in must be the stage before's c_out, found {stage}")


def make_backbone(
    backbone: str | Mapping[str, Any], stochastic_depth: float
) -> tuple[nn.Sequential, int, int]:
    """The convolutional part of an EfficientNetV2, its last channels and its factor of pixels per feature.

    backbone: efficientnet_v2_s or stages of one's own, see SemanticCompressor; ValueError for malformed ones.
    """
    # Slow to load (1.5 s, with torch's compiler); settings are checked without it.
    from torchvision.models import efficientnet

    check_backbone(backbone)
    blocks = dict(zip(BLOCKS, (efficientnet.FusedMBConvConfig, efficientnet.MBConvConfig), strict=True))
    spec = EFFICIENTNET_V2_S if isinstance(backbone, str) else backbone
    stages = [list(stage) for stage in spec["stages"]]
    whole = efficientnet.EfficientNet(
        [blocks[kind](*numbers) for kind, *numbers in stages],
        dropout=0.0,
        stochastic_depth_prob=stochastic_depth,
        num_classes=1,
        norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-3),
        last_channel=spec["c_last"],
    )
    return whole.features, spec["c_last"], 2 * math.prod(stage[3] for stage in stages)


def init_backbone(features: nn.Sequential) -> None:
    """Give the convolutions of an EfficientNetV2 their initial values (He et al. 2015, by fan out)."""
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class SemanticCompressor(Network):
    """EfficientNetV2 features, mapped to c_latent channels of unit variance.

    backbone: efficientnet_v2_s, or stages of one's own, {"stages": [[fused|mbconv, expansion, kernel, stride,
    c_in, c_out, layers], ...], "c_last": channels}, for a small network of any power-of-two factor.
    stochastic_depth: chance at which training leaves out the last residual block, less for earlier ones.
    """

    @keeps_config
    def __init__(
        self,
        c_latent: int = 16,
        backbone: str | Mapping[str, Any] = "efficientnet_v2_s",
        stochastic_depth: float = 0.2,
    ) -> None:
        super().__init__()
        self.backbone, c_last, self.factor = make_backbone(backbone, stochastic_depth)
        self.mapper = nn.Sequential(
            nn.Conv2d(c_last, c_latent, 1, bias=False), nn.BatchNorm2d(c_latent, affine=False)
        )
        self.init_weights()

    def init_weights(self) -> None:
        reset_all(self)
        init_backbone(self.backbone)

    def shard_units(self) -> list[nn.Module]:
        return list(self.backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures [B, 3, H, W] -> latents [B, c_latent, ceil(H / factor), ceil(W / factor)]."""
        check_shape("images", images, None, 3, None, None)
        return self.mapper(self.backbone(images.to(self.mapper.get_parameter("0.weight").dtype)))
