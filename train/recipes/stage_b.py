"""Stage B: a diffusion over Stage A latents, given compressor latents and pooled text.

The semantic compressor learns along with it (or is frozen): what Stage B needs to draw the picture again is
what the compressor learns to keep.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gdf
from dataset_tools.batches import Batch
from dataset_tools.latents import Latents
from modules import SemanticCompressor, StageA, StageB
from modules.conditions import compress_shrunk, stage_b_inputs
from modules.schema import ConfigError, from_plain
from train.conditioning import add_noise, drop_captions, keep_rows, random_scale
from train.config import Config
from train.encoders import Encoders
from train.latents import check_part
from train.losses.objective import DiffusionObjective
from train.networks import (
    check_networks,
    diffusion_network,
    evaluating,
    frozen_network,
    learning_network,
    network_dtype,
)
from train.pictures import num_counted, pictures
from train.recipe import Metrics
from train.recipes.diffusion import Example, ExtraConditions, no_extra
from train.recipes.settings import StageBModel, StageBSettings
from train.rng import StepRng


class StageBRecipe:
    """One player: Stage B, and the compressor unless it is frozen."""

    players: tuple[str, ...] = ("model",)
    network_name = "stage_b"

    def __init__(self, config: Config, learns: bool = True) -> None:
        self.settings = from_plain(StageBSettings, config.recipe, "recipe")
        self.model = from_plain(StageBModel, config.model, "model")
        compressor_learns = self.model.semantic_compressor.train is not False
        names = ("stage_b", "semantic_compressor") if compressor_learns else ("stage_b",)
        self.learning: tuple[str, ...] = names if learns else ()
        check_networks(self.model, self.learning, passing=self.network_name)
        self.dtype = network_dtype(config.run.precision)
        self.draws = config.run.sample_every > 0  # sheets, for which alone latents are decoded
        self.encoders = Encoders(self.model.text_encoder, None, self.dtype)
        self.latents: Latents | None = None
        self.objective = DiffusionObjective(config.gdf, self.settings.sampling)
        self.extra: ExtraConditions = no_extra

    def use_latents(self, made: Latents) -> tuple[str, ...]:
        compressor, settings = "semantic_compressor", self.settings
        if compressor in self.learning or self.model.semantic_compressor.train is None:
            raise ConfigError(
                f"model.{compressor}.train: expected false with the precomputed latents in {made.folder};"
                " a compressor that learns needs pictures"
            )
        if settings.random_scale != (1.0, 1.0):
            raise ConfigError(
                f"recipe.random_scale: expected [1, 1], the only size of the latents in {made.folder},"
                f" found {list(settings.random_scale)}"
            )
        check_part(made, compressor, self.model.semantic_compressor, settings.compressor_scale)
        check_part(made, "stage_a", self.model.stage_a)
        self.latents = made
        return (compressor, "stage_a", *self.encoders.use_latents(made))

    def build(self, device: torch.device) -> None:
        self.stage_a: StageA | None = None
        if self.latents is None or self.draws:
            self.stage_a = frozen_network("stage_a", self.model.stage_a, device, self.dtype)
        self.encoders.build(device)
        self.stage_b: StageB = diffusion_network(
            "stage_b", self.model.stage_b, device, self.dtype, learns=bool(self.learning)
        )
        self.semantic_compressor = self._build_compressor(device)
        self.player = nn.ModuleDict(self.networks())

    def _build_compressor(self, device: torch.device) -> SemanticCompressor | None:
        """One that learns, or a frozen one, or none where its latents are there."""
        name, settings = "semantic_compressor", self.model.semantic_compressor
        if name in self.learning:
            return learning_network(name, settings, device)
        return None if self.latents else frozen_network(name, settings, device, self.dtype)

    @property
    def network(self) -> StageB:
        return self.stage_b

    def prepared(self) -> list[nn.Module]:
        return list(self.networks().values())

    def helpers(self) -> list[nn.Module]:
        helpers = [*filter(None, [self.stage_a]), *self.encoders.encoders.values()]
        if self.semantic_compressor is not None and "semantic_compressor" not in self.learning:
            helpers.append(self.semantic_compressor)
        return helpers

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": self.player}

    def networks(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in self.learning}

    def facts(self, name: str) -> dict[str, Any]:
        if name != "stage_b":
            return {}
        return {
            **self.objective.facts(),
            "compressor_scale": self.settings.compressor_scale,
            "random_scale": list(self.settings.random_scale),
            **self.encoders.facts(),
        }

    def export(self, folder: Path) -> None:
        self.encoders.export(folder)

    def example(self, batch: Batch, rng: StepRng) -> Example:
        settings = self.settings
        captions = drop_captions(batch["captions"], settings.caption_dropout, rng)
        effnet = self._compress(batch, random_scale(*settings.random_scale, rng))
        effnet = add_noise(effnet, settings.latents_noise, rng)
        effnet = keep_rows(effnet, settings.latents_kept, rng)
        latents = self._encode(batch)
        conditions = stage_b_inputs(self.encoders.of_batch(batch, captions), effnet)
        conditions |= self.extra(batch, rng, True).conditional
        return Example(latents, conditions, self._noise(latents, rng))

    def unconditional(self, conditions: Mapping[str, Any]) -> dict[str, Any]:
        effnet = conditions["effnet"]
        return stage_b_inputs(self.encoders.empty(len(effnet)), torch.zeros_like(effnet))

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        latents, conditions, noise = self.example(batch, rng)
        counted = num_counted(batch)
        return self.objective.loss(self.stage_b, latents, conditions, rng, noise, counted)

    @torch.no_grad()
    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        latents = self._encode(batch)
        with evaluating(self.stage_b, *filter(None, [self.semantic_compressor])):
            effnet = self._compress(batch)
            extra = self.extra(batch, rng, False)
            text = self.encoders.of_batch(batch, batch["captions"])
            conditions = stage_b_inputs(text, effnet) | extra.conditional
            unconditional = self.unconditional(conditions) | extra.unconditional
            noise = self._noise(latents, rng)
            sheet = self.objective.sheet(self.stage_b, latents, conditions, unconditional, rng, noise)
        assert self.stage_a is not None  # sheets are drawn only where they were asked for
        shown = sheet._asdict() if "images" in batch else {"latents": latents, **sheet._asdict()}
        rows = {label: self.stage_a.decode(row).float().clamp(0, 1) for label, row in shown.items()}
        return {"original": pictures(batch), **rows} if "images" in batch else rows

    def after_step(self, step: int) -> None:
        self.objective.after_step()

    def state_dict(self) -> dict[str, Any]:
        return self.objective.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state)

    def _compress(self, batch: Batch, scale: float = 1.0) -> Tensor:
        if self.semantic_compressor is None:
            return batch["latents"].float()
        scale *= self.settings.compressor_scale
        return compress_shrunk(self.semantic_compressor, pictures(batch), scale)

    @torch.no_grad()
    def _encode(self, batch: Batch) -> Tensor:
        if self.latents is not None:
            return batch["stage_a_latents"].float()
        assert self.stage_a is not None  # it is one or the other
        return self.stage_a.encode_unquantized(pictures(batch)).float()

    def _noise(self, latents: Tensor, rng: StepRng) -> Tensor | None:
        if self.settings.noise == "white":
            return None
        return gdf.pyramid_noise(latents.shape, rng.samples, latents.device, size_range=(1, 16))
