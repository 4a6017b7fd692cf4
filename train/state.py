"""Everything that a run needs to go on, and what each rank writes of it into a checkpoint's folder.

    rank_00000.safetensors   its pieces of all tensors: weights/<network>/…, ema/<network>/… (averages of what
                             learns), optimizer/<player>/<parameter>/…, recipe/…
    rank_00000.json          its data position
    state.json               of the first rank: plain values of optimizers and recipe, counters, means, and
                             what the networks' exported files say in their headers

Nothing is gathered: no rank holds more than its own shards, and a whole tensor exists nowhere.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from dataset_tools.stream import Stream
from modules.network import Network
from train.checkpoints.folders import CheckpointError
from train.checkpoints.optimizers import OptimizerLoad, save_optimizer
from train.checkpoints.plain import put_together, take_apart, tensor_names
from train.checkpoints.shards import Shards
from train.checkpoints.staging import Snapshot, Staging
from train.ema import Ema
from train.metrics import Means
from train.parallel.ranks import gather
from train.parallel.shards import reshard
from train.parallel.world import World
from train.player import Player
from train.recipe import Recipe

STATE = "state.json"


@dataclass
class Counters:
    """What is counted over the whole life of a run."""

    step: int = 0
    samples: int = 0
    skipped_steps: int = 0  # for a loss or gradient that was not finite
    nonfinite_in_a_row: int = 0
    run_id: str = ""  # by which trackers know the run

    def count(self, num_samples: int, is_finite: bool) -> None:
        """Count one step."""
        self.step += 1
        self.samples += num_samples
        self.skipped_steps += not is_finite
        self.nonfinite_in_a_row = 0 if is_finite else self.nonfinite_in_a_row + 1


@dataclass
class TrainingState:
    """The objects whose state is saved. `snapshot` and `read` are called by all ranks together."""

    recipe: Recipe
    players: list[Player]
    ema: Ema | None
    stream: Stream
    counters: Counters
    world: World
    means: Means = field(default_factory=Means)  # of what no report has told yet

    def snapshot(self, staging: Staging, exports: bool) -> Snapshot:
        """Everything as it is now, copied into the CPU's memory. exports: noted, see `export_again`."""
        tensors = self._network_tensors()
        plain = {
            "networks": self._headers(),
            "optimizers": {player.name: save_optimizer(player, tensors) for player in self.players},
            "recipe": take_apart(self.recipe.state_dict(), "recipe", tensors),
            "counters": asdict(self.counters),
            "means": gather(self.means.state_dict()),
            "processes": self.world.size,
            "exports": exports,
        }
        texts = {f"{rank_stem(self.world.rank)}.json": json.dumps({"data": self.stream.state_dict()})}
        if self.world.is_first:
            texts[STATE] = json.dumps(plain)
        return Snapshot(self.counters.step, staging.copied(tensors), texts)

    def read(self, folder: Path) -> None:
        """Take everything back, whatever the number of ranks and the parallel mode were.

        Raises CheckpointError if it is the state of something else.
        """
        shards, plain = Shards(folder), read_state(folder)
        networks = self._network_tensors()
        check_same(folder, networks, shards)
        loads = [OptimizerLoad(p, _of_player(folder, plain, p), shards) for p in self.players]
        recipe = {name: shards.whole(name) for name in tensor_names(plain["recipe"])}
        shards.read(networks | {name: target for load in loads for name, target in load.targets.items()})
        for load in loads:
            load.finish()
        self.recipe.load_state_dict(put_together(plain["recipe"], recipe))
        # With another number of ranks the stream finds out by itself what a position still means.
        stem = rank_stem(min(self.world.rank, plain["processes"] - 1))
        self.stream.load_state_dict(json.loads((folder / f"{stem}.json").read_text())["data"])
        self.means.load_state_dict(plain["means"], self.world.rank, self.world.size)
        for name, value in plain["counters"].items():
            setattr(self.counters, name, value)

    def _network_tensors(self) -> dict[str, Tensor]:
        """The networks' parameters and buffers, and the averages that are kept of them."""
        for network in self.recipe.prepared():
            reshard(network)
        tensors: dict[str, Tensor] = {}
        for name, network in self.recipe.networks().items():
            state = network.state_dict(keep_vars=True)
            tensors |= {f"weights/{name}/{key}": tensor.detach() for key, tensor in state.items()}
            average: Mapping[nn.Parameter, Tensor] = self.ema.average if self.ema else {}
            parameters = dict(network.named_parameters(remove_duplicate=False))
            tensors |= {
                f"ema/{name}/{key}": average[parameters[key]]
                for key in state
                if key in parameters and parameters[key] in average
            }
        return tensors

    def _headers(self) -> dict[str, dict[str, Any]]:
        """What the exported file of each network says of it."""
        return {
            name: {"network": name, "config": cast(Network, network).config, **self.recipe.facts(name)}
            for name, network in self.recipe.networks().items()
        }


def rank_stem(rank: int) -> str:
    """What the names of a rank's files begin with."""
    return f"rank_{rank:05d}"


def read_state(folder: Path) -> dict[str, Any]:
    """The plain part of a checkpoint's state. Raises CheckpointError when it cannot be read."""
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE}: cannot be read ({error})") from error


def check_same(folder: Path, expected: Mapping[str, Tensor], shards: Shards) -> None:
    """Raise CheckpointError, naming the first few differences, unless the checkpoint is of these tensors."""
    saved = {name: facts for name, facts in shards.saved.items() if name.startswith(("weights/", "ema/"))}
    problems = [f"{name}: not in it" for name in expected if name not in saved]
    problems += [f"{name}: not asked for" for name in saved if name not in expected]
    problems += [
        f"{name}: expected {list(tensor.shape)}, found {list(saved[name].size)}"
        for name, tensor in expected.items()
        if name in saved and tensor.shape != saved[name].size
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{folder}: of other networks or settings: {'; '.join(problems[:3])}{more}")


def _of_player(folder: Path, plain: Mapping[str, Any], player: Player) -> Mapping[str, Any]:
    if player.name not in plain["optimizers"]:
        known = ", ".join(plain["optimizers"])
        raise CheckpointError(f"{folder}: no optimizer of '{player.name}' in it (found: {known})")
    return plain["optimizers"][player.name]
