"""Stage C: a diffusion over the frozen compressor's latents, given text and, now and then, a picture."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from modules.conditions import stage_c_inputs
from train.conditioning import compress, drop_captions
from train.config import Config
from train.encoders import FrozenImages, FrozenText
from train.networks import (
    check_networks,
    evaluating,
    frozen_network,
    learning_network,
    network_dtype,
)
from train.objective import DiffusionObjective
from train.pictures import pictures
from train.recipe import Metrics
from train.recipes.settings import StageCModel, StageCSettings
from train.rng import StepRng
from train.schema import from_plain
from train.viewer import LatentViewer


class StageCRecipe:
    """One player: Stage C."""

    players = ("model",)

    def __init__(self, config: Config) -> None:
        self.settings = from_plain(StageCSettings, config.recipe, "recipe")
        self.model = from_plain(StageCModel, config.model, "model")
        check_networks(self.model, learning=("stage_c",))
        self.image_size_px = config.data.image_size_px
        self.dtype = network_dtype(config.run.precision)
        self.text = FrozenText(self.model.text_encoder, self.dtype)
        self.images = FrozenImages(self.model.image_encoder, self.dtype) if self.model.image_encoder else None
        self.viewer = LatentViewer(self.model.previewer, self.model.stage_b, self.model.stage_a, self.dtype)
        self.objective = DiffusionObjective(config.gdf, self.settings.sampling)

    def build(self, device: torch.device) -> None:
        self.semantic_compressor = frozen_network(
            "semantic_compressor", self.model.semantic_compressor, device, self.dtype
        )
        self.stage_c = learning_network("stage_c", self.model.stage_c, device)
        for helper in (self.text, self.images, self.viewer):
            if helper is not None:
                helper.build(device)

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": self.stage_c}

    def networks(self) -> dict[str, nn.Module]:
        return {"stage_c": self.stage_c}

    @property
    def compression(self) -> float:
        """Pixels of the final picture per latent."""
        return self.settings.compression or self.semantic_compressor.factor / self.settings.compressor_scale

    def facts(self, name: str) -> dict[str, Any]:
        latents_side = self.image_size_px * self.settings.compressor_scale / self.semantic_compressor.factor
        return {
            "gdf": self.objective.spec,
            "compression": self.compression,
            "image_size_px": round(latents_side * self.compression),
            "text_encoder": self.text.fact(),
            **({"image_encoder": self.images.fact()} if self.images else {}),
        }

    def export(self, folder: Path) -> None:
        for encoder in (self.text, self.images):
            if encoder is not None:
                encoder.export(folder)

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        images = pictures(batch)
        captions = drop_captions(batch["captions"], self.settings.caption_dropout, rng)
        embeds = self.images(images, self.settings.image_kept, rng) if self.images else None
        conditions = stage_c_inputs(self.text(captions), embeds, self.stage_c.config["c_clip_img"])
        return self.objective.loss(
            self.stage_c,
            compress(self.semantic_compressor, images, self.settings.compressor_scale),
            conditions,
            rng,
        )

    @torch.no_grad()
    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        images = pictures(batch)
        text, empty = self.text(batch["captions"]), self.text([""] * len(images))
        inputs = [
            stage_c_inputs(features, None, self.stage_c.config["c_clip_img"]) for features in (text, empty)
        ]
        with evaluating(self.stage_c):
            sheet = self.objective.sheet(
                self.stage_c,
                compress(self.semantic_compressor, images, self.settings.compressor_scale),
                *inputs,
                rng,
            )
        rows = {"original": images}
        for label, latents in sheet._asdict().items():
            rows[label] = self.viewer(latents, text, empty, self.compression, rng)
        return rows

    def after_step(self, step: int) -> None:
        self.objective.after_step()

    def state_dict(self) -> dict[str, Any]:
        return self.objective.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state)
