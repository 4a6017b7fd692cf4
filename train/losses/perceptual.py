"""Perceptual distance: how differently two pictures look to a VGG16 (LPIPS, Zhang et al. 2018)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules import normalise_images
from modules.weights.pickled import read_pickled

# Channels of VGG16's convolutions ("D" of Simonyan & Zisserman 2014, table 1); "M" halves the size.
VGG16_LAYERS: tuple[int | str, ...] = (
    64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512,
)  # fmt: skip
VGG16_SOURCE = "https://download.pytorch.org/models/vgg16-397923af.pth"


def vgg16_features() -> nn.Sequential:
    """VGG16's convolutions and ReLUs, numbered as in torchvision's `features`, without the last pooling."""
    layers: list[nn.Module] = []
    in_channels = 3
    for entry in VGG16_LAYERS:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(in_channels, entry, 3, padding=1), nn.ReLU()]
            in_channels = entry
    return nn.Sequential(*layers)


class PerceptualDistance(nn.Module):
    """Mean squared difference of unit-length VGG16 features before each pooling.

    weights: torchvision's VGG16 file (its `features.*` entries are used); None: random ones, to be counted.
    linear_weights: LPIPS' own file of learned channel weights (`lin<level>.model.1.weight`); without it all
    channels count the same.
    Raises FileNotFoundError if a file is missing, ValueError if it holds something else.
    """

    def __init__(self, weights: str | Path | None, linear_weights: str | Path | None = None) -> None:
        super().__init__()
        self.features = vgg16_features()
        if weights is not None:
            advice = f"download {VGG16_SOURCE}"
            _load(self.features, _read(weights, "the VGG16 weights", advice), weights)
        channels = [
            size for size, after in zip(VGG16_LAYERS, (*VGG16_LAYERS[1:], "M"), strict=True) if after == "M"
        ]
        self.channel_weights = [torch.full((int(size),), 1.0 / int(size)) for size in channels]
        if linear_weights is not None:
            self.channel_weights = _linear_weights(linear_weights, self.channel_weights)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """images, targets: [B, 3, H, W] in [0, 1], sides of 16 px or more. Returns [B]; 0 for equal ones."""
        distance = images.new_zeros(images.shape[0], dtype=torch.float32)
        for ours, theirs, weights in zip(
            self._levels(images), self._levels(targets), self.channel_weights, strict=True
        ):
            difference = F.normalize(ours.float(), dim=1) - F.normalize(theirs.float(), dim=1)
            by_channel = difference.square().mean(dim=(2, 3))  # [B, C]
            distance = distance + by_channel @ weights.to(by_channel.device)
        return distance

    def _levels(self, images: Tensor) -> list[Tensor]:
        x, found = normalise_images(images), []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                found.append(x)
            x = layer(x)
        return [*found, x]


def _read(path: str | Path, what: str, advice: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: {what} are not there; {advice} or set recipe.perceptual_weight=0")
    try:
        return read_pickled(path)
    except ValueError as error:
        raise ValueError(f"{path}: expected {what}, found a file that torch cannot read; {advice}") from error


def _load(features: nn.Sequential, tensors: dict[str, Tensor], path: str | Path) -> None:
    prefix = "features."
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    expected = {name: value.shape for name, value in features.state_dict().items()}
    if {name: value.shape for name, value in found.items()} != expected:
        raise ValueError(
            f"{path}: not a VGG16 file: expected features.0.weight … features.28.bias; use {VGG16_SOURCE}"
        )
    features.load_state_dict(found)


def _linear_weights(path: str | Path, channel_weights: list[Tensor]) -> list[Tensor]:
    tensors = _read(path, "the LPIPS weights", "unset recipe.perceptual_linear_weights")
    names = [f"lin{level}.model.1.weight" for level in range(len(channel_weights))]
    for name, equal in zip(names, channel_weights, strict=True):
        if name not in tensors or tensors[name].numel() != equal.numel():
            raise ValueError(f"{path}: not LPIPS' VGG16 file: {name} with {equal.numel()} channels expected")
    return [tensors[name].flatten() for name in names]
