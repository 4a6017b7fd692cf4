"""The text and image encoders of a run: they never learn, and tell what captions and pictures are about."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.encoders import ImageEncoder, TextEncoder, TextFeatures
from train.conditioning import chance
from train.networks import frozen
from train.rng import StepRng


@dataclass
class ImageEncoderSettings:
    """A CLIP encoder. source: hub name or local folder; or config (with seed): of a small random one."""

    source: str | None = None
    config: dict[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.source is None) == (self.config is None):
            raise ValueError(
                "set either source (hub name or local folder) or config (a small random encoder)"
            )


@dataclass
class TextEncoderSettings(ImageEncoderSettings):
    """words: each one token to a random encoder's tokenizer; max_length: most tokens of a caption."""

    words: list[str] = field(default_factory=list)
    max_length: int = 77


class FrozenText:
    """Captions to text features."""

    def __init__(self, settings: TextEncoderSettings, dtype: torch.dtype) -> None:
        self.settings, self.dtype = settings, dtype

    def build(self, device: torch.device) -> None:
        self.encoder = frozen(TextEncoder(**vars(self.settings))).to(device, self.dtype)

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> TextFeatures:
        return self.encoder(captions)

    def fact(self) -> str:
        """Where a reader of the run's weights finds the encoder: its source, or a folder inside the run."""
        return self.settings.source or "text_encoder"

    def export(self, folder: Path) -> None:
        """Write an encoder that the config made into the run's folder."""
        if self.settings.config is not None:
            self.encoder.save(folder / "text_encoder")


class FrozenImages:
    """Pictures to image embeddings."""

    def __init__(self, settings: ImageEncoderSettings, dtype: torch.dtype) -> None:
        self.settings, self.dtype = settings, dtype

    def build(self, device: torch.device) -> None:
        self.encoder = frozen(ImageEncoder(**vars(self.settings))).to(device, self.dtype)

    @torch.no_grad()
    def __call__(self, images: Tensor, kept_share: float, rng: StepRng) -> Tensor:
        """Embeddings [B, 1, c], float32, of a share of the pictures; zeros, "no picture", for the others.

        images: [B, 3, H, W] in [0, 1]. Only the pictures that are kept are encoded.
        """
        kept = torch.tensor(chance(rng, kept_share), device=images.device)
        found = self.encoder(images[kept].to(self.dtype)).float()
        return found.new_zeros(len(images), *found.shape[1:]).masked_scatter(kept[:, None, None], found)

    def fact(self) -> str:
        """As FrozenText.fact."""
        return self.settings.source or "image_encoder"

    def export(self, folder: Path) -> None:
        """As FrozenText.export."""
        if self.settings.config is not None:
            self.encoder.save(folder / "image_encoder")
