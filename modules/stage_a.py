"""Stage A: the VQGAN between pixels and latents of a quarter of their size."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.network import Network, check_shape, keeps_config, reset_all
from modules.products import Linear, with_gelu
from modules.vector_quantizer import VectorQuantizer


class StageACode(NamedTuple):
    """What Stage A makes of pictures; both latents [B, c_latent, H / factor, W / factor] are scaled alike.

    latents: quantized, gradients pass straight through. unquantized: as the encoder gives them.
    indices: [B, H / factor, W / factor]. The losses are means over the unscaled latents.
    """

    latents: Tensor
    unquantized: Tensor
    indices: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor


class StageAResBlock(nn.Module):
    """Depthwise convolution and channel mixing, each behind a norm and gated by learned scalars."""

    def __init__(self, c: int, c_wide: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(c, c, 3, groups=c))
        self.channelwise = nn.Sequential(Linear(c, c_wide), nn.GELU(), Linear(c_wide, c))
        # Scale, shift and gate of the convolution, then of the channel mixing.
        self.gammas = nn.Parameter(torch.zeros(6))

    def reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:  # biases, and the gammas: each block starts as the identity
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.gammas.unbind()
        y = self._norm(x, scale_1, shift_1).permute(0, 3, 1, 2)
        x = torch.addcmul(x, self.depthwise(y), gate_1)
        expand, gelu, reduce = self.channelwise
        y = reduce(with_gelu(expand, self._norm(x, scale_2, shift_2), gelu)).permute(0, 3, 1, 2)
        return torch.addcmul(x, y, gate_2)

    @staticmethod
    def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Layer norm over channels with one scale and shift for all of them; returns [B, H, W, C]."""
        c = x.shape[1]
        return F.layer_norm(x.permute(0, 2, 3, 1), (c,), (1 + scale).expand(c), shift.expand(c), eps=1e-6)


class StageA(Network):
    """Encode pictures to quantized latents and back; the defaults are the released network.

    levels: each halves the size once; c_hidden: channels of the deepest level, halved at each level above.
    scale_factor: latents are divided by it, so that their standard deviation is about 1.
    """

    forward_methods = ("encode", "encode_unquantized", "decode")

    @keeps_config
    def __init__(
        self,
        levels: int = 2,
        bottleneck_blocks: int = 12,
        c_hidden: int = 384,
        c_latent: int = 4,
        codebook_size: int = 8192,
        scale_factor: float = 0.43,
    ) -> None:
        super().__init__()
        self.c_latent, self.scale_factor, self.factor = c_latent, scale_factor, 2**levels
        channels = [c_hidden // 2**level for level in reversed(range(levels))]
        self.in_block = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(3 * 4, channels[0], 1))
        down: list[nn.Module] = [StageAResBlock(channels[0], 4 * channels[0])]
        for c, deeper in zip(channels, channels[1:], strict=False):
            down += [nn.Conv2d(c, deeper, 4, stride=2, padding=1), StageAResBlock(deeper, 4 * deeper)]
        to_latents = nn.Sequential(nn.Conv2d(c_hidden, c_latent, 1, bias=False), nn.BatchNorm2d(c_latent))
        self.down_blocks = nn.Sequential(*down, to_latents)
        self.vquantizer = VectorQuantizer(c_latent, codebook_size)
        up: list[nn.Module] = [nn.Sequential(nn.Conv2d(c_latent, c_hidden, 1))]
        up += [StageAResBlock(c_hidden, 4 * c_hidden) for _ in range(bottleneck_blocks)]
        for deeper, c in zip(channels[::-1], channels[-2::-1], strict=False):
            up += [nn.ConvTranspose2d(deeper, c, 4, stride=2, padding=1), StageAResBlock(c, 4 * c)]
        self.up_blocks = nn.Sequential(*up)
        self.out_block = nn.Sequential(nn.Conv2d(channels[0], 3 * 4, 1), nn.PixelShuffle(2))
        self.init_weights()

    def init_weights(self) -> None:
        reset_all(self)
        for block in self._blocks():  # again: their layers' own resets came after theirs
            block.reset_parameters()

    def shard_units(self) -> list[nn.Module]:
        return [*self._blocks()]

    def _blocks(self) -> list[StageAResBlock]:
        return [block for block in (*self.down_blocks, *self.up_blocks) if isinstance(block, StageAResBlock)]

    def encode_unquantized(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] -> scaled latents [B, c_latent, H / factor, W / factor].

        These, not the quantized ones, are what the released Stage B decodes to.
        ValueError when `factor` does not divide height and width.
        """
        return self._features(images) / self.scale_factor

    def encode(self, images: Tensor) -> StageACode:
        """Pictures [B, 3, H, W] in [0, 1] -> quantized latents and what training needs of them."""
        features = self._features(images)
        quantized = self.vquantizer(features)
        return StageACode(
            latents=quantized.codes / self.scale_factor,
            unquantized=features / self.scale_factor,
            indices=quantized.indices,
            commitment_loss=quantized.commitment_loss,
            codebook_loss=quantized.codebook_loss,
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, c_latent, h, w] -> pictures [B, 3, h * factor, w * factor], about [0, 1]."""
        check_shape("latents", latents, None, self.c_latent, None, None)
        scaled = (latents * self.scale_factor).to(self.out_block.get_parameter("0.weight").dtype)
        return self.out_block(self.up_blocks(channels_last(scaled)))

    def forward(
        self, images: Tensor, quantized: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, StageACode]:
        """Pictures [B, 3, H, W] in [0, 1] -> their reconstructions, and the code.

        quantized: [B] bool, which pictures are decoded from quantized latents and which, as Stage B's will
        be, from unquantized ones; None: all from quantized. noise: added to the scaled latents that are
        decoded, of their shape.
        """
        code = self.encode(images)
        latents = code.latents
        if quantized is not None:
            latents = torch.where(quantized[:, None, None, None], code.latents, code.unquantized)
        return self.decode(latents if noise is None else latents + noise), code

    def _features(self, images: Tensor) -> Tensor:
        check_shape("images", images, None, 3, None, None)
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"images: height and width must be multiples of {self.factor}, found {height} x {width}; "
                "pad or crop the pictures first"
            )
        images = images.to(self.in_block.get_parameter("1.weight").dtype)
        return self.down_blocks(self.in_block(channels_last(images)))


def channels_last(x: Tensor) -> Tensor:
    """x [B, C, H, W] with the channels of a pixel side by side in memory, for norms and mixing as views."""
    return x.contiguous(memory_format=torch.channels_last)
