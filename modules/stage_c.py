"""Stage C: the U-Net that generates semantic compressor latents from text and picture embeddings."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modules.blocks import UpDownBlock2d
from modules.levels import ConditionSizes, make_levels, per_level
from modules.network import check_shape, keeps_config
from modules.unet import Prepared, UNet


class StageC(UNet):
    """Generate latents [B, c_in, H, W]; the defaults are the released 3.6 B network.

    c_hidden, nhead, blocks, block_repeat, level_config, kernel_size, dropout, self_attn: see `make_levels`.
    c_cond, c_r, t_conds: see `ConditionSizes`; c_clip_seq: tokens made of each pooled embedding.
    switch_level: for each change of level, whether the deeper level works at half the size.
    """

    @keeps_config
    def __init__(
        self,
        c_in: int = 16,
        c_out: int = 16,
        c_r: int = 64,
        patch_size: int = 1,
        c_cond: int = 2048,
        c_hidden: Sequence[int] = (2048, 2048),
        nhead: Sequence[int] | int = (32, 32),
        blocks: Sequence[Sequence[int]] = ((8, 24), (24, 8)),
        block_repeat: Sequence[Sequence[int]] | None = None,
        level_config: Sequence[str] = ("CTA", "CTA"),
        c_clip_text: int = 1280,
        c_clip_text_pooled: int = 1280,
        c_clip_img: int = 768,
        c_clip_seq: int = 4,
        kernel_size: int = 3,
        dropout: Sequence[float] | float = 0.1,
        self_attn: Sequence[bool] | bool = True,
        t_conds: Sequence[str] = ("sca", "crp"),
        switch_level: Sequence[bool] | bool = False,
    ) -> None:
        switches = per_level("switch_level", switch_level, len(c_hidden) - 1)
        scalers = [
            (UpDownBlock2d(c, deeper, "down", switch), UpDownBlock2d(deeper, c, "up", switch))
            for c, deeper, switch in zip(c_hidden, c_hidden[1:], switches, strict=False)
        ]
        levels = make_levels(
            c_hidden, nhead, blocks, block_repeat, level_config, kernel_size, dropout, self_attn
        )
        sizes = ConditionSizes(c_cond, c_r, tuple(t_conds))
        min_size = patch_size * 2 ** sum(switches)
        super().__init__(levels, scalers, sizes, c_in, c_out, patch_size, min_size)
        self.clip_txt_mapper = nn.Linear(c_clip_text, c_cond)
        self.clip_txt_pooled_mapper = nn.Linear(c_clip_text_pooled, c_cond * c_clip_seq)
        self.clip_img_mapper = nn.Linear(c_clip_img, c_cond * c_clip_seq)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for mapper in (self.clip_txt_mapper, self.clip_txt_pooled_mapper, self.clip_img_mapper):
            nn.init.normal_(mapper.weight, std=0.02)

    def embed_conditions(self, clip_text: Tensor, clip_text_pooled: Tensor, clip_img: Tensor) -> Tensor:
        """Text tokens [B, L, *] and pooled embeddings [B, S, *] or [B, *] -> tokens [B, N, c_cond]."""
        mapped = (
            self.map_tokens("clip_text", self.clip_txt_mapper, clip_text),
            self.map_tokens("clip_text_pooled", self.clip_txt_pooled_mapper, clip_text_pooled),
            self.map_tokens("clip_img", self.clip_img_mapper, clip_img),
        )
        return self.normalise_tokens(torch.cat(mapped, dim=1))

    def prepare(
        self, x: Tensor, clip_text: Tensor, clip_text_pooled: Tensor, clip_img: Tensor, **others: Any
    ) -> Prepared:
        """What these arguments of `forward` determine alone, for as long as no weight changes."""
        tokens = self.embed_conditions(clip_text, clip_text_pooled, clip_img)
        return Prepared(tokens, self.project(tokens), self.map_timesteps())

    def forward(
        self,
        x: Tensor,
        r: Tensor,
        clip_text: Tensor,
        clip_text_pooled: Tensor,
        clip_img: Tensor,
        sca: Tensor | None = None,
        crp: Tensor | None = None,
        cnet: Iterable[Tensor | None] = (),
        image_tokens: Tensor | None = None,
        prepared: Prepared | None = None,
    ) -> Tensor:
        """Predict the diffusion target of noised latents.

        x: [B, c_in, H, W]. r: noise condition, sca, crp: its companions, each [B] in [0, 1].
        clip_text: [B, L, c_clip_text]; clip_text_pooled, clip_img: [B, S, *] or [B, *].
        cnet: [B, C, h, w] or None for each convolution block in running order.
        image_tokens: [B, M, c_image] for the image adapter that is attached to this network.
        prepared: what `prepare` made of the same conditions, or None.
        Returns [B, c_out, H, W] in x's number format; computes in that of the weights.
        """
        check_shape("r", r, x.shape[0])
        features = self.embed(x)
        timestep = self.embed_timesteps(r, {"sca": sca, "crp": crp}).to(features.dtype)
        prepared = prepared or Prepared(self.embed_conditions(clip_text, clip_text_pooled, clip_img))
        return self.head(self.run(features, timestep, prepared, cnet, image_tokens), like=x)
