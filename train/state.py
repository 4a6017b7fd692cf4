"""Everything that a run needs to go on, as files of one checkpoint folder.

    weights/<network>.safetensors, …_ema.safetensors    with the network's config in the header
    state.pt     optimizers, the recipe's own state, the data position of every rank, counters; read without
                 unpickling anything but tensors and plain data

Sharded tensors are gathered one after the other on the first rank and written whole. So a checkpoint does not
depend on how many processes wrote it, is the same file format for one process and for many, can be checked by
file, and its weights are at once the export. The price is the first rank's memory: the optimizer's state must
fit into it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dataset_tools.stream import Stream
from modules.network import Network
from modules.weights import read_tensors, save_network
from train.checkpoint import CheckpointError, verify
from train.ema import Ema
from train.metrics import Means
from train.parallel.ranks import gather
from train.parallel.shards import assign, full, like, reshard
from train.parallel.world import World
from train.player import Player
from train.recipe import Recipe


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
    """The objects whose state is saved. `write` and `read` are called by all ranks together."""

    recipe: Recipe
    players: list[Player]
    ema: Ema | None
    stream: Stream
    counters: Counters
    world: World
    means: Means = field(default_factory=Means)  # of what no report has told yet

    def write(self, folder: Path | None) -> None:
        """Write the files into `folder`; None on all ranks but the first, which only help to gather."""
        self._reshard()
        for name, network in self.recipe.networks().items():
            self._write_network(folder, name, network, {})
            if self.ema and self.ema.covers(network):
                self._write_network(folder, f"{name}_ema", network, self.ema.average, name)
        state = {
            "optimizers": {player.name: self._optimizer_state(player) for player in self.players},
            "recipe": self.recipe.state_dict(),
            "data": gather(self.stream.state_dict()),
            "counters": asdict(self.counters),
            "means": gather(self.means.state_dict()),
        }
        if folder:
            torch.save(state, folder / "state.pt")

    def read(self, folder: Path) -> None:
        """Take everything back. Raises CheckpointError if anything is damaged or does not fit."""
        self._verify_once(folder)
        self._reshard()
        state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu", mmap=True)
        for name, network in self.recipe.networks().items():
            self._read_network(folder, name, network, {})
            if self.ema and self.ema.covers(network):
                self._read_network(folder, f"{name}_ema", network, self.ema.average)
        for player in self.players:
            self._load_optimizer(player, state["optimizers"], folder)
        self.recipe.load_state_dict(state["recipe"])
        # With another number of ranks the stream finds out by itself what a position still means.
        self.stream.load_state_dict(state["data"][min(self.world.rank, len(state["data"]) - 1)])
        self.means.load_state_dict(state["means"], self.world.rank, self.world.size)
        for name, value in state["counters"].items():
            setattr(self.counters, name, value)

    def _reshard(self) -> None:
        for network in self.recipe.prepared():
            reshard(network)

    def _verify_once(self, folder: Path) -> None:
        problem = None
        if self.world.is_first:
            try:
                verify(folder)
            except CheckpointError as error:
                problem = str(error)
        if problem := gather(problem)[0]:
            raise CheckpointError(problem)

    def _write_network(
        self,
        folder: Path | None,
        file_name: str,
        network: nn.Module,
        average: Mapping[nn.Parameter, Tensor],
        name: str = "",
    ) -> None:
        whole = {}
        for key, tensor in _tensors(network, average).items():
            gathered = full(tensor)
            if folder:
                whole[key] = gathered.cpu()
        if folder:
            path = folder / "weights" / f"{file_name}.safetensors"
            path.parent.mkdir(exist_ok=True)
            facts = self.recipe.facts(name or file_name)
            save_network(path, cast(Network, network), name or file_name, facts, tensors=whole)

    def _read_network(
        self, folder: Path, file_name: str, network: nn.Module, average: Mapping[nn.Parameter, Tensor]
    ) -> None:
        path = folder / "weights" / f"{file_name}.safetensors"
        if not path.exists():
            raise CheckpointError(f"{path}: missing; the run was started with other settings")
        saved, targets = read_tensors(path), _tensors(network, average)
        if saved.keys() != targets.keys():
            different = sorted(saved.keys() ^ targets.keys())
            raise CheckpointError(f"{path}: the network's parameters differ ({different[0]}, …)")
        for key, target in targets.items():
            if saved[key].shape != target.shape:
                raise CheckpointError(
                    f"{path}: {key}: expected {list(target.shape)}, found {list(saved[key].shape)}"
                )
            assign(target, saved[key])

    def _optimizer_state(self, player: Player) -> dict[str, dict[str, Any]]:
        names = {parameter: name for name, parameter in player.module.named_parameters()}
        state: dict[str, dict[str, Any]] = {}
        for parameter, entries in cast(Mapping[nn.Parameter, dict], player.optimizer.state).items():
            values = {}
            for key, value in entries.items():
                whole = full(value).cpu() if isinstance(value, Tensor) else value
                if self.world.is_first:
                    values[key] = whole
            state[names[parameter]] = values
        return state

    def _load_optimizer(self, player: Player, saved: Mapping[str, Any], folder: Path) -> None:
        names = {parameter: name for name, parameter in player.module.named_parameters()}
        ordered = [p for group in player.optimizer.param_groups for p in group["params"]]
        state = saved.get(player.name)
        if state is None or not state.keys() <= {names[p] for p in ordered}:
            raise CheckpointError(f"{folder}: the optimizer of '{player.name}' learnt other parameters")
        entries = {
            index: {key: _placed(value, parameter) for key, value in state[names[parameter]].items()}
            for index, parameter in enumerate(ordered)
            if names[parameter] in state
        }
        groups = player.optimizer.state_dict()["param_groups"]
        player.optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _tensors(network: nn.Module, average: Mapping[nn.Parameter, Tensor]) -> dict[str, Tensor]:
    """The network's parameters and buffers by name, the parameters replaced by their averages where given."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    state = network.state_dict(keep_vars=True)
    return {
        key: average.get(parameters[key], value).detach() if key in parameters else value
        for key, value in state.items()
    }


def _placed(value: Any, parameter: nn.Parameter) -> Any:
    """An optimizer's value for a parameter: cut like it if it has its shape."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return like(value.clone(), parameter)
    return value.clone() if isinstance(value, Tensor) else value
