"""LCM: a copy of a diffusion network learns to draw in a few steps, unguided, what it drew in many."""

from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

import gdf
from dataset_tools.batches import Batch
from modules.schema import ConfigError, bounded, from_plain
from modules.settings import NetworkSettings
from train.config import Config
from train.frozen import held, loading_dtype
from train.losses.consistency import Distillation
from train.networks import network_dtype
from train.recipe import Metrics
from train.recipes.wrapper import Wrapper
from train.rng import StepRng


@dataclass
class LCMSettings:
    """base: the network's own recipe; its `sampling` says how the student draws. The rest: Distillation."""

    name: str
    base: dict[str, Any] = field(default_factory=dict)
    teacher: gdf.SamplingSettings = gdf.SamplingSettings(steps=40, shift=2.0, sampler="ddim")
    num_times: int = bounded(200, 1)
    huber: float = bounded(0.00054, 1e-6)

    def __post_init__(self) -> None:
        if self.teacher.sampler != "ddim":
            raise ValueError(f"teacher: expected sampler ddim, found {self.teacher.sampler!r}")
        if self.num_times % self.teacher.steps:
            raise ValueError(
                f"num_times: expected a multiple of teacher.steps ({self.teacher.steps}),"
                f" found {self.num_times}"
            )


class LCMRecipe(Wrapper):
    """One player: the student. It begins as its teacher, which stays as it is."""

    def __init__(self, config: Config) -> None:
        self.settings = settings = from_plain(LCMSettings, config.recipe, "recipe")
        config, self.teacher_settings = without_format(config)
        super().__init__(config, learns=True)
        self._check()
        self.dtype = network_dtype(config.run.precision)
        diffusion = self.base.objective.diffusion
        self.distillation = Distillation(diffusion, settings.teacher, settings.num_times, settings.huber)

    def _check(self) -> None:
        """Raise ConfigError for what only the base's settings show."""
        name, sampling, settings = self.base.network_name, self.base.objective.sampling, self.settings
        for other in set(self.base.learning) - {name}:
            raise ConfigError(f"model.{other}.train: expected false; only {name} is distilled")
        if self._base_model.get("weights") is None and not self._base_model.get("allow_random"):
            raise ConfigError(f"model.{name}.weights: missing; name the file or run of the network to distil")
        if settings.num_times % sampling.steps:
            raise ConfigError(
                f"recipe.base.sampling.steps: expected a divisor of recipe.num_times ({settings.num_times}),"
                f" so that every step begins at a time that is learnt; found {sampling.steps}"
            )
        if sampling.shift != settings.teacher.shift:
            raise ConfigError(
                f"recipe.base.sampling.shift: expected the teacher's, {settings.teacher.shift:g},"
                f" found {sampling.shift:g}"
            )

    def build(self, device: torch.device) -> None:
        super().build(device)
        dtype = loading_dtype(self.teacher_settings, self.dtype)
        # Copied tensor by tensor in its own number format: a whole second copy in fp32 would take as much
        # memory as the student.
        copies: dict[int, Any] = {
            id(p): nn.Parameter(p.detach().to(dtype, copy=True)) for p in self.base.network.parameters()
        }
        teacher = deepcopy(self.base.network, copies).to(dtype)
        self.teacher = held(teacher, self.teacher_settings, device)

    def prepared(self) -> list[nn.Module]:
        return [*super().prepared(), self.teacher]

    def facts(self, name: str) -> dict[str, Any]:
        taught = {"teacher": asdict(self.settings.teacher), "num_times": self.settings.num_times}
        return {**super().facts(name), "distilled": taught}

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        latents, conditions, noise = self.base.example(batch, rng)
        unconditional = self.base.unconditional(conditions)
        loss, distances = self.distillation.loss(
            self.base.network, self.teacher, latents, conditions, unconditional, rng, noise
        )
        return loss, {"distance": distances.mean()}

    def after_step(self, step: int) -> None:
        """The base's statistics are of losses that are not taken here."""


def without_format(config: Config) -> tuple[Config, NetworkSettings]:
    """The settings without `frozen_weights` of the network to distil: they are its frozen teacher's."""
    name = str(config.recipe.get("base", {}).get("name"))
    if name not in config.model:
        return config, NetworkSettings()
    entry = dict(config.model[name])
    own = {key: entry.pop(key) for key in ("frozen_weights",) if key in entry}
    teacher = from_plain(NetworkSettings, own, f"model.{name}")
    return replace(config, model={**config.model, name: entry}), teacher
