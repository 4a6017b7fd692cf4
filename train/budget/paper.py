"""A run on paper: its recipe's networks on the meta device, which have sizes but no contents."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dataset_tools.batches import Batch
from modules.schema import ConfigError
from train.budget.autocast import OnMeta, as_on_cuda
from train.budget.ledger import Ledger, is_meta
from train.budget.precomputed import learn_from_latents, parts_there
from train.budget.repeats import Recorder, Run, Skipper, find_runs, owners
from train.budget.unread import vocabulary, without_files
from train.config import Config, ParallelConfig, config_from_plain
from train.losses.perceptual import PerceptualDistance
from train.networks import evaluating
from train.parallel.fsdp import product_weights
from train.parallel.preparation import prepare
from train.parallel.world import World
from train.recipe import Recipe
from train.recipes import make_recipe
from train.rng import step_rng

META = torch.device("meta")
INITIAL = {"normal_", "uniform_", "trunc_normal_", "fill_", "zero_", "mul_"}
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


@dataclass(frozen=True)
class Drawing:
    """What a sample sheet needs, in bytes. most: at once. rows: of what was drawn."""

    most: int
    rows: int


class Paper:
    """The networks of a run, counted; nothing is built or read.

    plain: the run's composed settings. latents: the networks of which batches hold what they made of
    pictures; None: as the run's shards say. Raises ValueError, one line, for what `train` would refuse.
    """

    def __init__(self, plain: Mapping[str, Any], latents: Collection[str] | None = None) -> None:
        self.plain = plain
        self.config: Config = config_from_plain(without_files(plain))
        with Unset():
            self.recipe: Recipe = make_recipe(self.config)
        parts = parts_there(plain) if latents is None else latents
        self.latents = learn_from_latents(self.recipe, self._base, self.config, parts) if parts else None
        with Unset(), META:
            self.recipe.build(META)
        self._complete()
        self.modules = self.recipe.trainable()
        for network in self.recipe.networks().values():
            network.train()
        self.units = [unit for network in self.recipe.prepared() for unit in network.shard_units()]  # type: ignore[operator]
        self._forwards = [unit.forward for unit in self.units]
        self._owners = owners(self.units)

    def _complete(self) -> None:
        """What files say, or later steps bring."""
        recipe: Any = self.recipe
        words = vocabulary(self.plain)
        encoders = self._base.encoders.encoders if hasattr(self._base, "encoders") else {}
        if words is not None and "text_encoder" in encoders:
            table = encoders["text_encoder"].token_table
            table.weight = nn.Parameter(
                table.weight.new_empty(words, table.embedding_dim), requires_grad=False
            )
            table.num_embeddings = words
        if self.plain["recipe"].get("perceptual_weight"):
            recipe.settings.perceptual_weight = self.plain["recipe"]["perceptual_weight"]
            recipe.perceptual = PerceptualDistance(None).to(META)
        if getattr(self._base.settings, "image_kept", 0):
            self._base.settings.image_kept = 1.0  # the most that a batch can need
        if hasattr(self._base, "objective"):  # a sheet's later steps take what the first ones do
            objective = self._base.objective
            objective.sampling = few_steps(objective.sampling)
        if hasattr(self._base, "viewer"):
            self._base.viewer.decoding = few_steps(self._base.viewer.decoding)
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

    @cached_property
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
        with self._lowered(lowered):
            return self._count(batch_size, recompute)

    def sheet(self, lowered: bool = False) -> Drawing:
        """The rows of one sample sheet, drawn with the weights as they are."""
        size, networks = self.config.run.num_samples, list(self.recipe.networks().values())
        with self._lowered(lowered), self._on_cuda() as mode, self._ledger() as ledger, torch.no_grad():
            self._watch(mode, Skipper(self.runs, ledger), False)
            mode.begin()
            with evaluating(*networks):
                rows = self.recipe.sample(self.batch(size), step_rng(0, 0, 0, size))
            mode.end_of_forward()
        return Drawing(ledger.peak_working, sum(row.numel() * row.element_size() for row in rows.values()))

    @contextmanager
    def _lowered(self, lowered: bool) -> Iterator[None]:
        """Matrices and kernels that learn are bf16 within the context, if wanted."""
        products = self.products() if lowered else set()
        for parameter in products:
            parameter.data = parameter.data.to(torch.bfloat16)
        try:
            yield
        finally:
            for parameter in products:
                parameter.data = parameter.data.float()

    def _count(self, batch_size: int, recompute: Recompute) -> Working:
        runs = self.runs
        batch, rng = self.batch(batch_size), step_rng(0, 0, 0, batch_size)
        with self._on_cuda() as mode, self._ledger() as ledger:
            skipper = Skipper(runs, ledger)
            self._watch(mode, skipper, recompute)
            for player in self.recipe.players:
                with only(self.modules, player):
                    mode.begin()
                    loss, _ = self.recipe.loss(player, batch, rng)
                    self._end_of_forward(mode, skipper, ledger)
                    if loss.requires_grad:
                        with ledger.backward():
                            loss.backward()
        found = Working(
            ledger.peak_working, ledger.peak, ledger.gradients, ledger.peak_frozen, dict(ledger.operations)
        )
        for parameter in self.learning:
            parameter.grad = None
        return found

    @cached_property
    def runs(self) -> list[Run]:
        """Blocks of which one stands for several, by what they do with one picture."""
        with self._on_cuda() as mode, self._ledger() as ledger:
            recorder = Recorder(self.units, ledger)
            self._watch(mode, recorder, False)
            for player in self.recipe.players:
                with only(self.modules, player):
                    mode.begin()
                    self.recipe.loss(player, self.batch(1), step_rng(0, 0, 0, 1))
                    mode.end_of_forward()
        return find_runs(recorder.calls)

    def _on_cuda(self) -> AbstractContextManager[OnMeta]:
        return as_on_cuda(torch.bfloat16 if self.config.run.precision == "bf16" else None)

    def _ledger(self) -> Ledger:
        return Ledger(META, self.learning, self.recipe.helpers())

    def _watch(self, mode: OnMeta, watcher: Recorder | Skipper, recompute: Recompute) -> None:
        """Prepare the networks as training does, and let the watcher have a look at every block's calls."""
        for unit, forward in zip(self.units, self._forwards, strict=True):
            unit.forward = mode.inside(forward)
        parallel = ParallelConfig(activation_checkpointing=recompute)
        prepare(self.recipe.prepared(), parallel, World(0, 1, META))
        for place, unit in enumerate(self.units):
            unit.forward = watcher.around(place, unit.forward)

    def _end_of_forward(self, mode: OnMeta, skipper: Skipper, ledger: Ledger) -> None:
        for weight, lowered in mode.casts():
            if (times := skipper.times(self._owners.get(id(weight), -1))) > 1:
                ledger.stands_for(times, weight, lowered)
        mode.end_of_forward()

    def batch(self, size: int) -> Batch:
        """What the data would bring."""
        side = self.config.data.image_size_px
        texts = {"captions": [""] * size, "keys": [""] * size}
        if self.latents is not None:
            return cast(Batch, texts | self.latents.batch(size, side))
        images = torch.empty(size, 3, side, side, dtype=torch.uint8, device=META)
        batch: dict[str, Any] = {"images": images, **texts}
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


class Unset(TorchFunctionMode):
    """Within its context new networks get no initial values, which meta tensors cannot hold anyway."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        changed = args[0] if args else kwargs.get("tensor")
        if getattr(func, "__name__", "") in INITIAL and is_meta(changed):
            return changed
        return func(*args, **kwargs)


def few_steps(sampling: Any) -> Any:
    """The same way of sampling with as few steps as can be without being the first and the last at once."""
    return replace(sampling, steps=min(sampling.steps, 2))
