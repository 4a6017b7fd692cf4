"""A recipe around another: the base's conditions, loss and sample sheets, and something else learns."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from dataset_tools.latents import Latents
from modules.schema import ConfigError, nearest
from modules.weights import find_weights, fingerprint
from train.config import Config
from train.recipe import Metrics
from train.recipes.bases import make_base, model_names
from train.rng import StepRng


def check_names(config: Config, own: Sequence[str]) -> None:
    """Raise ConfigError for an entry of config.model that neither the wrapper nor its base has."""
    known = [*own, *model_names(config.recipe.get("base", {}))]
    for name in config.model:
        if name not in known and len(known) > len(own):
            raise ConfigError(f"model.{name}: unknown key; {nearest(name, known)}")


class Wrapper:
    """What all wrapping recipes have in common: they leave to the base whatever they do not override.

    own: entries of config.model that are the wrapper's, not the base's. learns: whether the base's network
    learns; otherwise it is frozen, in eval mode, and held in the number format of frozen networks.
    """

    players: tuple[str, ...] = ("model",)
    learning: tuple[str, ...] = ()
    """Entries of config.model that learn and so may begin without weights."""

    def __init__(self, config: Config, own: Sequence[str] = (), learns: bool = False) -> None:
        check_names(config, own)
        model = {name: entry for name, entry in config.model.items() if name not in own}
        self.base = make_base(replace(config, model=model), config.recipe.get("base", {}), learns)
        self._base_model = model.get(self.base.network_name, {})

    def use_latents(self, made: Latents) -> tuple[str, ...]:
        return self.base.use_latents(made)

    def build(self, device: torch.device) -> None:
        self.base.build(device)
        # Now, not when files are written: by then other weights may lie in their place, or none.
        self._base_facts = self._describe_base()

    def prepared(self) -> list[nn.Module]:
        return [self.base.network]

    def helpers(self) -> list[nn.Module]:
        return self.base.helpers()

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": self.base.network}

    def networks(self) -> dict[str, nn.Module]:
        return self.base.networks()

    def facts(self, name: str) -> dict[str, Any]:
        return {**self.base.facts(self.base.network_name), "base": self._base_facts}

    def export(self, folder: Path) -> None:
        self.base.export(folder)

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        return self.base.loss(player, batch, rng)

    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        return self.base.sample(batch, rng)

    def after_step(self, step: int) -> None:
        self.base.after_step(step)

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base.load_state_dict(state)

    def _describe_base(self) -> dict[str, Any]:
        """Which weights this is trained on: the network's name, its file, and a checksum to know it by."""
        weights = self._base_model.get("weights")
        facts: dict[str, Any] = {"network": self.base.network_name, "weights": weights}
        if weights is not None:
            facts["fingerprint"] = fingerprint(find_weights(weights, self.base.network_name))
        return facts
