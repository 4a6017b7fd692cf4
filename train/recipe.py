"""What the loop asks of a recipe: it says what learns, from what, and its loss; the loop does the rest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from train.rng import StepRng

Metrics = Mapping[str, float | Tensor]


class Recipe(Protocol):
    """One way of training. The loop calls `build` once, then everything else.

    A recipe never calls `backward` or `step`, draws all chance from the `StepRng` it is given, and changes
    state that its losses move (statistics of any kind) only in `after_step`, averaged over ranks: then a step
    does not depend on how its global batch was cut. It calls networks that learn as `network(...)`, never
    their other methods, for sharded parameters are gathered by the hooks of the call.
    """

    players: tuple[str, ...]
    """Who learns, in the order of their updates: ("model",), or ("generator", "discriminator")."""

    def build(self, device: torch.device) -> None:
        """Make or load the networks on `device`; freeze what does not learn and put it into eval mode."""

    def trainable(self) -> dict[str, nn.Module]:
        """Player -> the module that learns; a ModuleDict when several networks learn together."""

    def networks(self) -> dict[str, nn.Module]:
        """Name -> network to store as `weights/NAME.safetensors`; together they hold all that learns.

        An adapter's holder shares its layers with the network that it changes.
        """

    def prepared(self) -> list[nn.Module]:
        """The networks that gradients pass through, learning or frozen: they are compiled, recomputed and
        sharded block by block (`shard_units`), so together they hold all that learns."""

    def helpers(self) -> list[nn.Module]:
        """The frozen networks that are not among those (encoders, Stage A): with `parallel.shard_frozen` they
        are shared out too, so every rank has to use them equally often."""

    def facts(self, name: str) -> dict:
        """What the header of that file says beside the network's config."""

    def loss(self, player: str, batch: Batch, rng: StepRng) -> tuple[Tensor, Metrics]:
        """The player's loss, a mean over the micro-batch, and what to report of it.

        batch["images"]: uint8 [B, 3, H, W] on the device of `build`. A loss that does not depend on the
        player's weights (before a start step, say) leaves the player as it is.
        """

    def sample(self, batch: Batch, rng: StepRng) -> dict[str, Tensor]:
        """Rows of a sample sheet: label -> images [B, 3, H, W] in [0, 1]; last what the weights draw."""

    def after_step(self, step: int) -> None:
        """Called after all players' updates; step counts from 0. May average over ranks."""

    def state_dict(self) -> dict:
        """State beside the networks' weights: nested dicts and lists of tensors, numbers and strings."""

    def load_state_dict(self, state: dict) -> None:
        """Take back what `state_dict` gave; raises when it does not fit."""

    def export(self, folder: Path) -> None:
        """Write what a reader of the run needs beside the weights (the text encoder that the config made)."""
