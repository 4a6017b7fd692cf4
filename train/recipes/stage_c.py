"""Stage C: a diffusion over the frozen compressor's latents, given text and, now and then, a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from dataset_tools.latents import Latents
from modules import SemanticCompressor, StageC
from modules.conditions import TextFeatures, compress_shrunk, stage_c_inputs
from modules.schema import from_plain
from train.conditioning import drop_captions
from train.config import Config
from train.encoders import Encoders
from train.latents import check_part
from train.losses.objective import DiffusionObjective
from train.networks import (
    check_networks,
    diffusion_network,
    evaluating,
    frozen_network,
    network_dtype,
)
from train.pictures import num_counted, pictures
from train.recipe import Metrics
from train.recipes.diffusion import Example, ExtraConditions, no_extra
from train.recipes.settings import StageCModel, StageCSettings
from train.reports.viewer import LatentViewer
from train.rng import StepRng


class StageCRecipe:
    """One player: Stage C."""

    players: tuple[str, ...] = ("model",)
    network_name = "stage_c"

    def __init__(self, config: Config, learns: bool = True) -> None:
        self.settings = from_plain(StageCSettings, config.recipe, "recipe")
        self.model = from_plain(StageCModel, config.model, "model")
        self.learning: tuple[str, ...] = (self.network_name,) if learns else ()
        check_networks(self.model, self.learning, passing=self.network_name)
        self.image_size_px = config.data.image_size_px
        self.dtype = network_dtype(config.run.precision)
        self.encoders = Encoders(self.model.text_encoder, self.model.image_encoder, self.dtype)
        self.latents: Latents | None = None
        networks = (self.model.previewer, self.model.stage_b, self.model.stage_a)
        self.viewer = LatentViewer(*networks, self.dtype, is_used=config.run.sample_every > 0)
        self.objective = DiffusionObjective(config.gdf, self.settings.sampling)
        self.extra: ExtraConditions = no_extra

    def use_latents(self, made: Latents) -> tuple[str, ...]:
        name, scale = "semantic_compressor", self.settings.compressor_scale
        check_part(made, name, self.model.semantic_compressor, scale)
        self.latents = made
        return (name, *self.encoders.use_latents(made))

    def build(self, device: torch.device) -> None:
        self.semantic_compressor: SemanticCompressor | None = None
        if self.latents is None:
            self.semantic_compressor = frozen_network(
                "semantic_compressor", self.model.semantic_compressor, device, self.dtype
            )
        self.stage_c: StageC = diffusion_network(
            "stage_c", self.model.stage_c, device, self.dtype, learns=bool(self.learning)
        )
        self.encoders.build(device)
        self.viewer.build(device)

    @property
    def network(self) -> StageC:
        return self.stage_c

    def prepared(self) -> list[nn.Module]:
        return [self.stage_c]

    def helpers(self) -> list[nn.Module]:
        compressor = [] if self.semantic_compressor is None else [self.semantic_compressor]
        return [*compressor, *self.encoders.encoders.values(), *self.viewer.networks.values()]

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": self.stage_c}

    def networks(self) -> dict[str, nn.Module]:
        return {name: self.stage_c for name in self.learning}

    @property
    def compressor_factor(self) -> int:
        """Pixels that the compressor sees per latent."""
        if self.latents is not None:
            return self.latents.facts.networks["semantic_compressor"].factor
        assert self.semantic_compressor is not None  # it is one or the other
        return self.semantic_compressor.factor

    @property
    def compression(self) -> float:
        """Pixels of the final picture per latent."""
        return self.settings.compression or self.compressor_factor / self.settings.compressor_scale

    def facts(self, name: str) -> dict[str, Any]:
        latents_side = self.image_size_px * self.settings.compressor_scale / self.compressor_factor
        return {
            **self.objective.facts(),
            "compression": self.compression,
            "image_size_px": round(latents_side * self.compression),
            **self.encoders.facts(),
        }

    def export(self, folder: Path) -> None:
        self.encoders.export(folder)

    def example(self, batch: Batch, rng: StepRng) -> Example:
        captions = drop_captions(batch["captions"], self.settings.caption_dropout, rng)
        embeds = self.encoders.images_of_batch(batch, self.settings.image_kept, rng)
        conditions = self._inputs(self.encoders.of_batch(batch, captions), embeds)
        conditions |= self.extra(batch, rng, True).conditional
        return Example(self._compress(batch), conditions)

    def unconditional(self, conditions: Mapping[str, Any]) -> dict[str, Any]:
        return self._inputs(self.encoders.empty(len(conditions["clip_text"])))

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        latents, conditions, noise = self.example(batch, rng)
        counted = num_counted(batch)
        return self.objective.loss(self.stage_c, latents, conditions, rng, noise, counted)

    @torch.no_grad()
    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        captions, latents = batch["captions"], self._compress(batch)
        text, empty = self.encoders.of_batch(batch, captions), self.encoders.empty(len(captions))
        extra = self.extra(batch, rng, False)
        inputs = self._inputs(text) | extra.conditional
        unconditional = self.unconditional(inputs) | extra.unconditional
        with evaluating(self.stage_c):
            sheet = self.objective.sheet(self.stage_c, latents, inputs, unconditional, rng)
        rows = {}
        if "images" in batch:
            rows["original"] = pictures(batch)
        else:
            rows["latents"] = self.viewer(latents, text, empty, self.compression, rng)
        for label, latents in sheet._asdict().items():
            rows[label] = self.viewer(latents, text, empty, self.compression, rng)
        return rows

    def after_step(self, step: int) -> None:
        self.objective.after_step()

    def state_dict(self) -> dict[str, Any]:
        return self.objective.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state)

    def _compress(self, batch: Batch) -> Tensor:
        if self.semantic_compressor is None:
            return batch["latents"].float()
        return compress_shrunk(self.semantic_compressor, pictures(batch), self.settings.compressor_scale)

    def _inputs(self, text: TextFeatures, embeds: Tensor | None = None) -> dict[str, Any]:
        return stage_c_inputs(text, embeds, self.stage_c.config["c_clip_img"])
