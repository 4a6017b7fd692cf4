"""A small network that says where in a picture people look; control filters paint over it, or around it."""

from torch import Tensor, nn

from modules.network import Network, check_shape, keeps_config, reset_all


def convolution(c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that continues the picture by reflection."""
    return [nn.ReflectionPad2d(kernel_size // 2), nn.Conv2d(c_in, c_out, kernel_size, stride)]


def normalised(c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    """The same with each picture's channels normalised after it."""
    return [*convolution(c_in, c_out, kernel_size, stride), nn.InstanceNorm2d(c_out, affine=True)]


class SaliencyBlock(nn.Module):
    """Two convolutions beside the identity. x: [B, c, H, W]."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.resblock = nn.Sequential(*normalised(c, c, 3), nn.ReLU(), *normalised(c, c, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.resblock(x)


class MicroResNet(Network):
    """Saliency of pictures on a grid of an eighth of their size (Johnson et al. 2016's residual blocks)."""

    factor = 8

    @keeps_config
    def __init__(self) -> None:
        super().__init__()
        self.downsampler = nn.Sequential(
            *normalised(3, 8, 9, stride=4),
            nn.ReLU(),
            *normalised(8, 16, 3, stride=2),
            nn.ReLU(),
            *normalised(16, 32, 3, stride=2),
            nn.ReLU(),
        )
        widen = nn.Conv2d(32, 64, 1, groups=32, bias=False)
        self.residual = nn.Sequential(SaliencyBlock(32), widen, SaliencyBlock(64))
        self.segmentator = nn.Sequential(
            *normalised(64, 16, 3),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            *convolution(16, 1, 9),
            nn.Sigmoid(),
        )
        self.init_weights()

    def init_weights(self) -> None:
        reset_all(self)

    def shard_units(self) -> list[nn.Module]:
        return [self.downsampler, self.residual, self.segmentator]

    def forward(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] -> saliency [B, 1, H / 8, W / 8] in (0, 1), of even sizes."""
        check_shape("images", images, None, 3, None, None)
        images = images.to(self.downsampler.get_parameter("1.weight").dtype)
        return self.segmentator(self.residual(self.downsampler(images)))
