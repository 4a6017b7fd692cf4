"""The text and image encoders of a run: they never learn, and tell what captions and pictures are about."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset_tools.batches import Batch
from dataset_tools.latents import Latents
from modules.conditions import TextFeatures
from modules.encoders import ImageEncoder, TextEncoder, check_config
from modules.schema import ConfigError
from modules.settings import ImageEncoderSettings, TextEncoderSettings
from train.conditioning import chance
from train.frozen import held, loading_dtype
from train.latents import check_part
from train.parallel.shards import is_sharded
from train.pictures import pictures
from train.rng import StepRng

KINDS: dict[str, Any] = {"text_encoder": TextEncoder, "image_encoder": ImageEncoder}


class Encoders:
    """The encoders of one run. image: None leaves the images without embeddings."""

    def __init__(
        self, text: TextEncoderSettings, image: ImageEncoderSettings | None, dtype: torch.dtype
    ) -> None:
        self.settings = {"text_encoder": text} | ({"image_encoder": image} if image else {})
        for name, settings in self.settings.items():
            check_config(f"model.{name}", settings.config)
        self.dtype = dtype
        self.passes_gradients = False  # through the text encoder, to tokens that learn
        self.latents: Latents | None = None

    def use_latents(self, made: Latents) -> tuple[str, ...]:
        """Take from batches what was precomputed, before `build`: the encoders in question are not loaded.

        Returns which those are. Raises ConfigError when it was made by others than the settings name.
        """
        used = list(self.settings)
        if self.passes_gradients or "text_encoder" not in made.parts:  # captions can be encoded as ever
            used.remove("text_encoder")
        for name in used:
            check_part(made, name, self.settings[name])
        self.latents = made.only(used)
        return self.latents.parts

    def is_precomputed(self, name: str) -> bool:
        """Whether batches hold what this encoder says."""
        return self.latents is not None and name in self.latents.parts

    def build(self, device: torch.device) -> None:
        self.encoders = {
            name: held(self._load(name).to(loading_dtype(settings, self.dtype)), settings, device)
            for name, settings in self.settings.items()
            if not self.is_precomputed(name)
        }
        if self.latents is not None and self.is_precomputed("text_encoder"):
            tokens, pooled = (states.to(device, self.dtype) for states in self.latents.empty)
            self.empty_states = TextFeatures(tokens, pooled)

    def of_batch(self, batch: Batch, captions: list[str]) -> TextFeatures:
        """What a batch's captions say, of which some may have been replaced by the empty one."""
        if not self.is_precomputed("text_encoder"):
            return self.text(captions)
        dropped = [text != own for text, own in zip(captions, batch["captions"], strict=True)]
        at = torch.tensor(dropped, device=batch["text_tokens"].device)[:, None, None]
        own = TextFeatures(batch["text_tokens"].to(self.dtype), batch["text_pooled"].to(self.dtype))
        nothing = self.empty(len(captions))
        return TextFeatures(*(torch.where(at, one, other) for one, other in zip(nothing, own, strict=True)))

    def empty(self, count: int) -> TextFeatures:
        """What the empty caption says, so many times."""
        if not self.is_precomputed("text_encoder"):
            return self.text([""] * count)
        return TextFeatures(*(states.expand(count, -1, -1) for states in self.empty_states))

    def text(self, captions: list[str]) -> TextFeatures:
        """What any captions say; "" for no caption."""
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

    def images_of_batch(self, batch: Batch, kept_share: float, rng: StepRng) -> Tensor | None:
        """The same of a batch."""
        if not self.is_precomputed("image_encoder"):
            return self.images(pictures(batch), kept_share, rng) if "image_encoder" in self.encoders else None
        choice = chance(rng, kept_share)
        embeds = batch["image_embeds"].float()
        return embeds * torch.tensor(choice, device=embeds.device)[:, None, None] if any(choice) else None

    def feature_width(self, kind: str, device: torch.device) -> int:
        """Channels of those features. Raises ConfigError where they need pictures that are not there."""
        if self.latents is None or not self.is_precomputed("image_encoder"):
            return self.image_features(torch.zeros(1, 3, 8, 8, device=device), kind).shape[-1]
        if kind != "pooled":
            raise ConfigError(
                f"model.ip_adapter.config.image_proj.name: expected pooled with the latents in"
                f" {self.latents.folder}, found {kind}, which are made of pixels"
            )
        return self.latents.facts.networks["image_encoder"].shape[-1]

    def features_of_batch(self, batch: Batch, kind: str) -> Tensor:
        """Features of all pictures of a batch, as `image_features`; only `pooled` ones are precomputed."""
        if not self.is_precomputed("image_encoder"):
            return self.image_features(pictures(batch), kind)
        return batch["image_embeds"].float()

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
                is_whole = name in self.encoders and not settings.is_quantised
                encoder = self.encoders[name] if is_whole else self._load(name)
                encoder.save(folder / name)

    def _load(self, name: str) -> Any:
        return KINDS[name](**self.settings[name].keywords())
