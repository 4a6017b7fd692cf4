"""ControlNet: a small network learns to steer a frozen Stage C by pictures of what it is to follow."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from dataset_tools.latents import Latents
from modules.adapters.controlnet import ControlNet, check_fits
from modules.adapters.filters import ControlFilter, build_filter
from modules.pictures import control_pictures, false_colours
from modules.schema import ConfigError, bounded, from_plain
from modules.settings import NetworkSettings
from modules.unet import UNet
from modules.weights import describe, load_network
from train.conditioning import keep_rows
from train.config import Config
from train.networks import check_networks, evaluating, learning_network
from train.pictures import pictures
from train.recipes.diffusion import Extra
from train.recipes.stage_c import StageCRecipe
from train.recipes.wrapper import Wrapper
from train.rng import StepRng


@dataclass
class ControlNetSettings:
    """base: Stage C's own recipe."""

    name: str
    base: dict[str, Any] = field(default_factory=dict)
    control_dropout: float = bounded(0.0, 0.0, 1.0)  # of control pictures that are blank (zeros)


@dataclass
class ControlNetModel:
    """The ControlNet learns; its weights may be a compressor's, of which it then takes the backbone."""

    controlnet: NetworkSettings = field(default_factory=NetworkSettings)


class ControlNetRecipe(Wrapper):
    """One player: the ControlNet. `data.control` names the filter that makes its pictures."""

    learning = ("controlnet",)

    def __init__(self, config: Config) -> None:
        self.settings = from_plain(ControlNetSettings, config.recipe, "recipe")
        if self.settings.base.get("name") != "stage_c":
            raise ConfigError("recipe.base.name: expected stage_c, the only network that takes controls")
        super().__init__(config, own=self.learning)
        own = {name: config.model[name] for name in self.learning if name in config.model}
        self.model = from_plain(ControlNetModel, own, "model")
        check_networks(self.model, self.learning)
        if config.data.control is None:
            raise ConfigError("data.control: missing; name a filter, such as {name: canny}")
        self.spec = config.data.control
        self.base.extra = self._extra

    def use_latents(self, made: Latents) -> tuple[str, ...]:
        raise ConfigError(
            f"data.shards: {made.folder} holds precomputed latents, but control pictures are made of pixels;"
            " name shards of pictures"
        )

    def build(self, device: torch.device) -> None:
        super().build(device)
        self.controlnet: ControlNet = make_controlnet(self.model.controlnet, device)
        self.filter = build_filter(self.spec, self.steered.semantic_compressor, "data.control")
        check(self.controlnet, self.filter, self.steered.network)

    @property
    def steered(self) -> StageCRecipe:
        """The base."""
        assert isinstance(self.base, StageCRecipe)  # __init__ sees to it
        return self.base

    def prepared(self) -> list[nn.Module]:
        return [*super().prepared(), self.controlnet]

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": self.controlnet}

    def networks(self) -> dict[str, nn.Module]:
        return {"controlnet": self.controlnet}

    def facts(self, name: str) -> dict[str, Any]:
        base = self.steered
        pixels_per_latent = base.compressor_factor / base.settings.compressor_scale
        return {**super().facts(name), "filter": self.spec, "control_px_per_latent": pixels_per_latent}

    @torch.no_grad()
    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        control = self._control(batch, rng)
        with evaluating(self.controlnet):
            rows = self.base.sample({**batch, "control": control}, rng)
        shown = self.filter.preview(pictures(batch))
        if shown is None:
            shown = control_pictures(control) if self.filter.in_workers else false_colours(control)
        return {"original": rows.pop("original"), "control": shown, **rows}

    def _extra(self, batch: Batch, rng: StepRng, learning: bool) -> Extra:
        """Control maps, also for the unconditional half: guidance is to strengthen the caption alone."""
        control = self._control(batch, rng)
        if learning:
            control = keep_rows(control, 1 - self.settings.control_dropout, rng)
        maps = self.controlnet(control)
        return Extra({"cnet": maps}, {"cnet": maps})

    def _control(self, batch: Batch, rng: StepRng) -> Tensor:
        """The pictures [B, c, h, w] for the ControlNet: the batch's, or made here if workers could not."""
        if "control" not in batch:
            return self.filter(pictures(batch), rng.samples)
        control = batch["control"]
        return control if control.is_floating_point() else control.float() / 255


def make_controlnet(settings: NetworkSettings, device: torch.device) -> ControlNet:
    """A ControlNet that learns: fresh, from its weights, or on the backbone of a compressor's file."""
    path = settings.weights
    if path is None or not Path(path).is_file() or describe(path)[0] != "semantic_compressor":
        return learning_network("controlnet", settings, device)
    controlnet: ControlNet = learning_network("controlnet", replace(settings, weights=None), device)
    compressor: Any = load_network(path, "semantic_compressor")
    try:
        controlnet.adopt_backbone(compressor)
    except ValueError as error:
        raise ConfigError(f"model.controlnet.weights: {path}: {error}") from error
    return controlnet


def check(controlnet: ControlNet, control_filter: ControlFilter, network: UNet) -> None:
    """Raise ConfigError unless the ControlNet reads what the filter makes and fits the network."""
    if controlnet.c_in != control_filter.channels:
        raise ConfigError(
            f"model.controlnet.config.c_in: expected {control_filter.channels}, what the filter"
            f" {control_filter.name} makes, found {controlnet.c_in}"
        )
    try:
        check_fits(controlnet, network)
    except ValueError as error:
        raise ConfigError(f"model.controlnet.config.{error}") from error
