"""A run on paper: its recipe's networks on the meta device, which have sizes but no contents."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import nn

from dataset_tools.batches import Batch
from modules.schema import ConfigError
from train.budget.autocast import OnMeta, as_on_cuda
from train.budget.ledger import Ledger
from train.budget.unread import vocabulary, without_files
from train.config import Config, ParallelConfig, config_from_plain
from train.losses.perceptual import PerceptualDistance
from train.parallel.fsdp import product_weights
from train.parallel.preparation import prepare
from train.parallel.world import World
from train.recipe import Recipe
from train.recipes import make_recipe
from train.rng import step_rng

META = torch.device("meta")
Recompute = bool | Literal["selective"]


@dataclass(frozen=True)
class Working:
    """What one micro-batch needs beside what stays, in bytes.

    alone: most at once without gradients. together: with those that there were then. gradients: all.
    helping: most while encoders and the like run. operations: by phase, see `Ledger`.
    """

    alone: int
    together: int
    gradients: int
    helping: int
    operations: Mapping[str, int] = field(default_factory=dict)


class Paper:
    """The networks of a run, counted; nothing is built or read.

    plain: the run's composed settings. Raises ValueError, one line, for what `train` would refuse.
    """

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self.plain = plain
        self.config: Config = config_from_plain(without_files(plain))
        self.recipe: Recipe = make_recipe(self.config)
        with META:
            self.recipe.build(META)
        self._complete()
        self.modules = self.recipe.trainable()
        for network in self.recipe.networks().values():
            network.train()
        self.units = [unit for network in self.recipe.prepared() for unit in network.shard_units()]  # type: ignore[operator]
        self._forwards = [unit.forward for unit in self.units]

    def _complete(self) -> None:
        """What files say, or later steps bring."""
        recipe: Any = self.recipe
        words = vocabulary(self.plain)
        if words is not None and hasattr(self._base, "encoders"):
            table = self._base.encoders.encoders["text_encoder"].token_table
            table.weight = nn.Parameter(
                table.weight.new_empty(words, table.embedding_dim), requires_grad=False
            )
            table.num_embeddings = words
        if self.plain["recipe"].get("perceptual_weight"):
            recipe.settings.perceptual_weight = self.plain["recipe"]["perceptual_weight"]
            recipe.perceptual = PerceptualDistance(None).to(META)
        if getattr(self._base.settings, "image_kept", 0):
            self._base.settings.image_kept = 1.0  # the most that a batch can need
        if start := self.plain["recipe"].get("adversarial_start_step"):
            recipe.step = start

    @property
    def _base(self) -> Any:
        """The recipe that has the encoders."""
        return getattr(self.recipe, "base", self.recipe)

    @property
    def base(self) -> nn.Module | None:
        """The frozen network that something else learns in or from, if there is one, see `base_name`."""
        recipe: Any = self.recipe
        teacher: nn.Module | None = getattr(recipe, "teacher", None)
        if teacher is not None or recipe is self._base:
            return teacher
        network: nn.Module = self._base.network
        return network

    @property
    def base_name(self) -> str:
        """By which the settings call it."""
        return "" if self.base is None else str(self._base.network_name)

    @property
    def learning(self) -> list[nn.Parameter]:
        """All that learns, each once."""
        found = (p for module in self.modules.values() for p in module.parameters() if p.requires_grad)
        return list(dict.fromkeys(found))

    def averaged(self) -> list[nn.Parameter]:
        """Of what a moving average is kept: the first player's."""
        return [p for p in self.modules[self.recipe.players[0]].parameters() if p.requires_grad]

    def products(self) -> set[nn.Parameter]:
        """What `optim.weights` can hold in bf16."""
        found = (p for module in self.modules.values() for p in product_weights(module))
        return {parameter for parameter in found if parameter.requires_grad}

    def frozen(self) -> dict[str, nn.Module]:
        """Networks that do not learn, or only in part, by their names in the settings."""
        recipe, base = cast(Any, self.recipe), self._base
        encoders = base.encoders.encoders if hasattr(base, "encoders") else {}
        drawing = base.viewer.networks if hasattr(base, "viewer") else {}
        found: dict[str, nn.Module] = {}
        for name in self.config.model:
            network = encoders.get(name) or drawing.get(name) or getattr(base, name, None)
            if isinstance(network, nn.Module) and name not in self.recipe.networks():
                found[name] = network
        extra = {
            "teacher": getattr(recipe, "teacher", None),
            "perceptual": getattr(recipe, "perceptual", None),
        }
        return found | {name: network for name, network in extra.items() if network is not None}

    def micro_step(self, batch_size: int, recompute: Recompute, lowered: bool = False) -> Working:
        """Forward and backward of one micro-batch of square pictures, for all players one after another.

        recompute: as parallel.activation_checkpointing. lowered: matrices and kernels that learn are bf16.
        """
        products = self.products() if lowered else set()
        for parameter in products:
            parameter.data = parameter.data.to(torch.bfloat16)
        try:
            return self._count(batch_size, recompute)
        finally:
            for parameter in products:
                parameter.data = parameter.data.float()

    def _count(self, batch_size: int, recompute: Recompute) -> Working:
        dtype = torch.bfloat16 if self.config.run.precision == "bf16" else None
        batch, learning = self.batch(batch_size), self.learning
        rng = step_rng(0, 0, 0, batch_size)
        with as_on_cuda(dtype) as mode, Ledger(META, learning, self.recipe.helpers()) as ledger:
            for unit, forward in zip(self.units, self._forwards, strict=True):
                unit.forward = mode.inside(forward)
            parallel = ParallelConfig(activation_checkpointing=recompute)
            prepare(self.recipe.prepared(), parallel, World(0, 1, META))
            for player in self.recipe.players:
                with only(self.modules, player):
                    self._player(player, batch, rng, mode, ledger)
        found = Working(
            ledger.peak_working, ledger.peak, ledger.gradients, ledger.peak_frozen, dict(ledger.operations)
        )
        for parameter in learning:
            parameter.grad = None
        return found

    def _player(self, player: str, batch: Batch, rng: Any, mode: OnMeta, ledger: Ledger) -> None:
        mode.begin()
        loss, _ = self.recipe.loss(player, batch, rng)
        mode.end_of_forward()
        if loss.requires_grad:
            with ledger.backward():
                loss.backward()

    def batch(self, size: int) -> Batch:
        """What the data would bring."""
        side = self.config.data.image_size_px
        images = torch.empty(size, 3, side, side, dtype=torch.uint8, device=META)
        batch: dict[str, Any] = {"images": images, "captions": [""] * size, "keys": [""] * size}
        if control := self.config.data.control_filter():
            made = control(torch.zeros(1, 3, side, side), [torch.Generator()])
            batch["control"] = torch.empty(size, *made.shape[1:], dtype=torch.uint8, device=META)
        elif self.config.data.control and self.config.data.control["name"] == "identity":
            raise ConfigError("data.control: identity looks for faces, which pictures without contents lack")
        return cast(Batch, batch)


@contextmanager
def only(modules: Mapping[str, nn.Module], player: str) -> Iterator[None]:
    """All others stand still within the context."""
    others = [
        parameter
        for name, module in modules.items()
        for parameter in module.parameters()
        if name != player and parameter.requires_grad
    ]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
