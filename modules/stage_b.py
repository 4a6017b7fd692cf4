"""Stage B: the U-Net that decodes semantic compressor latents to Stage A latents."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from modules.blocks import resize
from modules.levels import ConditionSizes, make_levels
from modules.mixing import LayerNorm2d
from modules.network import check_shape, keeps_config
from modules.scalers import Doubling, Halving
from modules.unet import Prepared, UNet


def pixel_mapper(c_in: int, c: int) -> nn.Sequential:
    """Two 1x1 convolutions and a norm, from a picture's channels to the first level's."""
    return nn.Sequential(nn.Conv2d(c_in, 4 * c, 1), nn.GELU(), nn.Conv2d(4 * c, c, 1), LayerNorm2d(c))


class StageB(UNet):
    """Decode to latents [B, c_in, H, W]; the defaults are the released 1.5 B network.

    c_hidden, nhead, blocks, block_repeat, level_config, kernel_size, dropout, self_attn: see `make_levels`.
    c_cond, c_r, t_conds: see `ConditionSizes`; c_clip_seq: tokens made of each pooled text embedding.
    c_effnet: channels of the compressor latents; c_pixels: of the optional picture beside them.
    """

    @keeps_config
    def __init__(
        self,
        c_in: int = 4,
        c_out: int = 4,
        c_r: int = 64,
        patch_size: int = 2,
        c_cond: int = 1280,
        c_hidden: Sequence[int] = (320, 640, 1280, 1280),
        nhead: Sequence[int] | int = (-1, -1, 20, 20),
        blocks: Sequence[Sequence[int]] = ((2, 6, 28, 6), (6, 28, 6, 2)),
        block_repeat: Sequence[Sequence[int]] | None = ((1, 1, 1, 1), (3, 3, 2, 2)),
        level_config: Sequence[str] = ("CT", "CT", "CTA", "CTA"),
        c_clip: int = 1280,
        c_clip_seq: int = 4,
        c_effnet: int = 16,
        c_pixels: int = 3,
        kernel_size: int = 3,
        dropout: Sequence[float] | float = (0.0, 0.0, 0.1, 0.1),
        self_attn: Sequence[bool] | bool = True,
        t_conds: Sequence[str] = ("sca",),
    ) -> None:
        scalers = [
            (Halving(c, deeper), Doubling(deeper, c))
            for c, deeper in zip(c_hidden, c_hidden[1:], strict=False)
        ]
        levels = make_levels(
            c_hidden, nhead, blocks, block_repeat, level_config, kernel_size, dropout, self_attn
        )
        sizes = ConditionSizes(c_cond, c_r, tuple(t_conds))
        min_size = patch_size * 2 ** len(scalers)
        super().__init__(levels, scalers, sizes, c_in, c_out, patch_size, min_size)
        self.c_effnet, self.c_pixels = c_effnet, c_pixels
        self.effnet_mapper = pixel_mapper(c_effnet, c_hidden[0])
        self.pixels_mapper = pixel_mapper(c_pixels, c_hidden[0])
        self.clip_mapper = nn.Linear(c_clip, c_cond * c_clip_seq)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for mapper in (self.effnet_mapper, self.pixels_mapper):
            for layer in ("0.weight", "2.weight"):
                nn.init.normal_(mapper.get_parameter(layer), std=0.02)
        nn.init.normal_(self.clip_mapper.weight, std=0.02)

    def embed_conditions(self, clip: Tensor) -> Tensor:
        """Pooled text [B, S, c_clip] or [B, c_clip] -> tokens [B, S * c_clip_seq, c_cond]."""
        return self.normalise_tokens(self.map_tokens("clip", self.clip_mapper, clip))

    def embed_pictures(self, effnet: Tensor, pixels: Tensor | None, height: int, width: int) -> Tensor:
        """Compressor latents and the picture (None: black) -> features [B, c_hidden[0], height, width]."""
        check_shape("effnet", effnet, None, self.c_effnet, None, None)
        # One black pixel is a black picture of any size, once resized.
        pixels = effnet.new_zeros(len(effnet), self.c_pixels, 1, 1) if pixels is None else pixels
        check_shape("pixels", pixels, len(effnet), self.c_pixels, None, None)
        latents = self.effnet_mapper(resize(effnet.to(self.dtype), height, width))
        return latents + resize(self.pixels_mapper(pixels.to(self.dtype)), height, width)

    def prepare(
        self, x: Tensor, effnet: Tensor, clip: Tensor, pixels: Tensor | None = None, **others: Any
    ) -> Prepared:
        """What these arguments of `forward` determine alone, for as long as no weight changes."""
        tokens, (height, width) = self.embed_conditions(clip), self.features_size(x)
        pictures = self.embed_pictures(effnet, pixels, height, width)
        return Prepared(tokens, self.project(tokens), self.map_timesteps(), pictures)

    def forward(
        self,
        x: Tensor,
        r: Tensor,
        effnet: Tensor,
        clip: Tensor,
        pixels: Tensor | None = None,
        sca: Tensor | None = None,
        prepared: Prepared | None = None,
    ) -> Tensor:
        """Predict the diffusion target of noised Stage A latents.

        x: [B, c_in, H, W]. r: noise condition, sca: its companion, each [B] in [0, 1].
        effnet: [B, c_effnet, h, w] of any size. clip: [B, S, c_clip] or [B, c_clip].
        pixels: [B, c_pixels, h, w] of any size, or None.
        prepared: what `prepare` made of the same conditions and size, or None.
        Returns [B, c_out, H, W] in x's number format; computes in that of the weights.
        """
        check_shape("r", r, x.shape[0])
        features = self.embed(x)
        if prepared is None:
            pictures = self.embed_pictures(effnet, pixels, *features.shape[-2:])
            prepared = Prepared(self.embed_conditions(clip), pictures=pictures)
        assert prepared.pictures is not None
        timestep = self.embed_timesteps(r, {"sca": sca}).to(features.dtype)
        return self.head(self.run(features + prepared.pictures, timestep, prepared), like=x)
