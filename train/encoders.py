"""The text and image encoders of a run: they never learn, and tell what captions and pictures are about."""

from pathlib import Path

import torch
from torch import Tensor

from modules.conditions import TextFeatures
from modules.encoders import ImageEncoder, TextEncoder
from modules.settings import ImageEncoderSettings, TextEncoderSettings
from train.conditioning import chance
from train.networks import frozen
from train.parallel.shards import is_sharded
from train.rng import StepRng


class Encoders:
    """The encoders of one run. image: None leaves the images without embeddings."""

    def __init__(
        self, text: TextEncoderSettings, image: ImageEncoderSettings | None, dtype: torch.dtype
    ) -> None:
        self.settings = {"text_encoder": text} | ({"image_encoder": image} if image else {})
        self.dtype = dtype
        self.passes_gradients = False  # through the text encoder, to tokens that learn

    def build(self, device: torch.device) -> None:
        kinds = {"text_encoder": TextEncoder, "image_encoder": ImageEncoder}
        self.encoders = {
            name: frozen(kinds[name](**vars(settings)).to(device, self.dtype))
            for name, settings in self.settings.items()
        }

    def text(self, captions: list[str]) -> TextFeatures:
        """What the captions say; "" for no caption."""
        with torch.set_grad_enabled(self.passes_gradients and torch.is_grad_enabled()):
            return self.encoders["text_encoder"](captions)

    @torch.no_grad()
    def images(self, images: Tensor, kept_share: float, rng: StepRng) -> Tensor | None:
        """Embeddings [B, 1, c], float32, of a share of the pictures, and zeros ("no picture") for the others.

        images: [B, 3, H, W] in [0, 1]. Only the pictures that are kept are encoded; None when none is.
        """
        if "image_encoder" not in self.encoders:
            return None
        choice = chance(rng, kept_share)
        if not any(choice):
            if is_sharded(self.encoders["image_encoder"]):  # other ranks may need this one's part
                self.encoders["image_encoder"](images[:1])
            return None
        kept = torch.tensor(choice, device=images.device)
        found = self.encoders["image_encoder"](images[kept]).float()
        embeds = found.new_zeros(len(images), *found.shape[1:])
        embeds[kept] = found
        return embeds

    @torch.no_grad()
    def image_features(self, images: Tensor, kind: str) -> Tensor:
        """Features [B, N, c], float32, of all pictures [B, 3, H, W] in [0, 1]: `pooled` or `patches`."""
        return self.encoders["image_encoder"].features(images, kind).float()

    def facts(self) -> dict[str, str]:
        """Where a reader of the run's weights finds each encoder: its source, or a folder inside the run."""
        return {name: settings.source or name for name, settings in self.settings.items()}

    def export(self, folder: Path) -> None:
        """Write the encoders that the config made into the run's folder."""
        for name, settings in self.settings.items():
            if settings.config is not None:
                self.encoders[name].save(folder / name)
