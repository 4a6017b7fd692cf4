"""What the recipes that train a diffusion network offer to those that wrap one."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from dataset_tools.batches import Batch
from dataset_tools.latents import Latents
from modules.network import Network
from train.encoders import Encoders
from train.losses.objective import DiffusionObjective
from train.recipe import Recipe
from train.rng import StepRng


class Example(NamedTuple):
    """What the network learns from: clean latents [B, C, H, W], its conditions, and noise (None: white)."""

    latents: Tensor
    conditions: dict[str, Any]
    noise: Tensor | None = None


class Extra(NamedTuple):
    """Further keywords of the network's forward, for given conditions and for the unconditional half."""

    conditional: dict[str, Any]
    unconditional: dict[str, Any]


ExtraConditions = Callable[[Batch, StepRng, bool], Extra]
"""(batch, rng, learning): learning is False for sample sheets, where nothing is dropped."""


def no_extra(batch: Batch, rng: StepRng, learning: bool) -> Extra:
    """Nothing beside the recipe's own conditions."""
    return Extra({}, {})


class DiffusionRecipe(Recipe, Protocol):
    """A recipe whose one player is a diffusion network."""

    network_name: str
    """By which the network is stored: stage_b or stage_c."""
    learning: tuple[str, ...]
    """Names of the networks that learn."""
    objective: DiffusionObjective
    encoders: Encoders
    extra: ExtraConditions
    """Asked for further conditions in `example` and `sample`; what wraps the recipe sets it."""

    def use_latents(self, made: Latents) -> tuple[str, ...]:
        """As of `train.latents.LearnsFromLatents`."""

    @property
    def network(self) -> Network:
        """The diffusion network, once built."""

    def example(self, batch: Batch, rng: StepRng) -> Example:
        """A micro-batch as `loss` uses it, some of its conditions dropped."""

    def unconditional(self, conditions: Mapping[str, Any]) -> dict[str, Any]:
        """The same conditions, without `extra`, of pictures of which nothing is said."""
