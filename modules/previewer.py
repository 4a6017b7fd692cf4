"""The previewer: a small decoder from compressor latents to pictures eight times their size."""

from torch import Tensor, nn

from modules.network import Network, check_shape, keeps_config, reset_all


class Previewer(Network):
    """Decode compressor latents at once, without Stage B; the defaults are the released network."""

    @keeps_config
    def __init__(self, c_in: int = 16, c_hidden: int = 512, c_out: int = 3) -> None:
        super().__init__()
        self.c_in = c_in
        half, quarter = c_hidden // 2, c_hidden // 4
        widths = (c_hidden, half, quarter, quarter)
        layers = [
            *activated(nn.Conv2d(c_in, c_hidden, 1)),
            *activated(nn.Conv2d(c_hidden, c_hidden, 3, padding=1)),
        ]
        for c, c_next in zip(widths, widths[1:], strict=False):
            layers += activated(nn.ConvTranspose2d(c, c_next, 2, stride=2))
            layers += activated(nn.Conv2d(c_next, c_next, 3, padding=1))
        self.blocks = nn.Sequential(*layers, nn.Conv2d(quarter, c_out, 1))
        self.init_weights()

    def init_weights(self) -> None:
        reset_all(self)

    def shard_units(self) -> list[nn.Module]:
        return [self.blocks]

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [B, c_in, h, w] -> pictures [B, c_out, 8 h, 8 w], about [0, 1], not clamped."""
        check_shape("latents", latents, None, self.c_in, None, None)
        return self.blocks(latents.to(self.blocks.get_parameter("0.weight").dtype))


def activated(conv: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    """A convolution, its activation and its norm."""
    return [conv, nn.GELU(), nn.BatchNorm2d(conv.out_channels)]
