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
from modules import SemanticCompressor, StageA, StageB
from modules.conditions import compress_shrunk, stage_b_inputs
from modules.schema import from_plain
from train.conditioning import add_noise, drop_captions, keep_rows, random_scale
from train.config import Config
from train.encoders import Encoders
from train.networks import (
    check_networks,
    diffusion_network,
    evaluating,
    frozen_network,
    learning_network,
    network_dtype,
)
from train.objective import DiffusionObjective
from train.pictures import pictures
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
        check_networks(self.model, self.learning)
        self.dtype = network_dtype(config.run.precision)
        self.frozen_dtype = self.dtype
        self.encoders = Encoders(self.model.text_encoder, None, self.dtype)
        self.objective = DiffusionObjective(config.gdf, self.settings.sampling)
        self.extra: ExtraConditions = no_extra

    def build(self, device: torch.device) -> None:
        self.stage_a: StageA = frozen_network("stage_a", self.model.stage_a, device, self.dtype)
        self.encoders.build(device)
        self.stage_b: StageB = diffusion_network(
            "stage_b", self.model.stage_b, device, self.frozen_dtype, learns=bool(self.learning)
        )
        compressor = self.model.semantic_compressor
        self.semantic_compressor: SemanticCompressor = (
            learning_network("semantic_compressor", compressor, device)
            if "semantic_compressor" in self.learning
            else frozen_network("semantic_compressor", compressor, device, self.dtype)
        )
        self.player = nn.ModuleDict(self.networks())

    @property
    def network(self) -> StageB:
        return self.stage_b

    def prepared(self) -> list[nn.Module]:
        return list(self.networks().values())

    def helpers(self) -> list[nn.Module]:
        frozen = [] if "semantic_compressor" in self.learning else [self.semantic_compressor]
        return [self.stage_a, *self.encoders.encoders.values(), *frozen]

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
        settings, images = self.settings, pictures(batch)
        captions = drop_captions(batch["captions"], settings.caption_dropout, rng)
        effnet = self._compress(images, random_scale(*settings.random_scale, rng))
        effnet = add_noise(effnet, settings.latents_noise, rng)
        effnet = keep_rows(effnet, settings.latents_kept, rng)
        latents = self._encode(images)
        conditions = self._conditions(captions, effnet) | self.extra(batch, rng, True).conditional
        return Example(latents, conditions, self._noise(latents, rng))

    def unconditional(self, conditions: Mapping[str, Any]) -> dict[str, Any]:
        effnet = conditions["effnet"]
        return self._conditions([""] * len(effnet), torch.zeros_like(effnet))

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        latents, conditions, noise = self.example(batch, rng)
        return self.objective.loss(self.stage_b, latents, conditions, rng, noise)

    @torch.no_grad()
    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        images = pictures(batch)
        latents = self._encode(images)
        with evaluating(self.stage_b, self.semantic_compressor):
            effnet = self._compress(images)
            extra = self.extra(batch, rng, False)
            conditions = self._conditions(batch["captions"], effnet) | extra.conditional
            unconditional = self.unconditional(conditions) | extra.unconditional
            noise = self._noise(latents, rng)
            sheet = self.objective.sheet(self.stage_b, latents, conditions, unconditional, rng, noise)
        rows = {label: self.stage_a.decode(row).float().clamp(0, 1) for label, row in sheet._asdict().items()}
        return {"original": images, **rows}

    def after_step(self, step: int) -> None:
        self.objective.after_step()

    def state_dict(self) -> dict[str, Any]:
        return self.objective.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state)

    def _compress(self, images: Tensor, scale: float = 1.0) -> Tensor:
        return compress_shrunk(self.semantic_compressor, images, self.settings.compressor_scale * scale)

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        return self.stage_a.encode_unquantized(images).float()

    def _conditions(self, captions: list[str], effnet: Tensor) -> dict[str, Any]:
        return stage_b_inputs(self.encoders.text(captions), effnet)

    def _noise(self, latents: Tensor, rng: StepRng) -> Tensor | None:
        if self.settings.noise == "white":
            return None
        return gdf.pyramid_noise(latents.shape, rng.samples, latents.device, size_range=(1, 16))
