"""The previewer: a small decoder that learns to guess the picture from the frozen compressor's latents."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from modules import Previewer, SemanticCompressor
from modules.conditions import compress_shrunk
from modules.metrics import psnr
from modules.pictures import resized
from modules.schema import from_plain
from train.config import Config
from train.losses.pixels import pixel_loss
from train.networks import (
    check_networks,
    evaluating,
    frozen_network,
    learning_network,
    network_dtype,
)
from train.pictures import pictures
from train.recipe import Metrics
from train.recipes.settings import PreviewerModel, PreviewerSettings
from train.rng import StepRng


class PreviewerRecipe:
    """One player: the previewer."""

    players: tuple[str, ...] = ("model",)
    learning = ("previewer",)

    def __init__(self, config: Config) -> None:
        self.settings = from_plain(PreviewerSettings, config.recipe, "recipe")
        self.model = from_plain(PreviewerModel, config.model, "model")
        check_networks(self.model, self.learning)
        self.dtype = network_dtype(config.run.precision)

    def build(self, device: torch.device) -> None:
        self.semantic_compressor: SemanticCompressor = frozen_network(
            "semantic_compressor", self.model.semantic_compressor, device, self.dtype
        )
        self.previewer: Previewer = learning_network("previewer", self.model.previewer, device)

    def prepared(self) -> list[nn.Module]:
        return [self.previewer]

    def helpers(self) -> list[nn.Module]:
        return [self.semantic_compressor]

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": self.previewer}

    def networks(self) -> dict[str, nn.Module]:
        return {"previewer": self.previewer}

    def facts(self, name: str) -> dict[str, Any]:
        return {}

    def export(self, folder: Path) -> None:
        """Nothing beside the weights."""

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        images = pictures(batch)
        previews = self._preview(images)
        targets = resized(images, *previews.shape[2:])
        loss = pixel_loss(previews, targets, self.settings.l1_weight, self.settings.l2_weight)
        return loss, {"psnr": psnr(previews.detach(), targets).mean()}

    @torch.no_grad()
    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        images = pictures(batch)
        with evaluating(self.previewer):
            return {"original": images, "previewed": self._preview(images).clamp(0, 1)}

    def after_step(self, step: int) -> None:
        """Nothing is kept from one step to the next."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take back."""

    def _preview(self, images: Tensor) -> Tensor:
        latents = compress_shrunk(self.semantic_compressor, images, self.settings.compressor_scale)
        return self.previewer(latents).float()
