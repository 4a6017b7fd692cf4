"""Everything that a run needs to go on, and what each rank writes of it into a checkpoint's folder.

    rank_00000.safetensors   its pieces of all tensors: weights/<network>/…, ema/<network>/… (averages of what
                             learns), optimizer/<player>/<parameter>/…, recipe/…
    rank_00000.json          its data position
    state.json               of the first rank: plain values of optimizers and recipe, counters, means, and
                             what the networks' exported files say in their headers

Nothing is gathered: no rank holds more than its own shards, and a whole tensor exists nowhere. What is read
may be a stranger's, checksums and all: it is compared with the state that there is before it is taken.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from dataset_tools.stream import Stream
from modules.network import Network
from modules.schema import ConfigError, bounded, from_plain, one_line
from modules.weights.plain_data import read_json
from train.checkpoints.folders import MOST_PLAIN_BYTES, CheckpointError, step_of
from train.checkpoints.optimizers import OptimizerLoad, save_optimizer
from train.checkpoints.plain import check_alike, put_together, take_apart, tensor_names
from train.checkpoints.shards import Shards
from train.checkpoints.staging import Snapshot, Staging
from train.ema import Ema
from train.parallel.ranks import gather
from train.parallel.shards import reshard
from train.parallel.world import World
from train.player import Player
from train.recipe import Recipe
from train.reports.metrics import Means

STATE = "state.json"
NETWORK = re.compile(r"\w+", re.ASCII)
RUN_ID = re.compile(r"[\w-]{0,128}", re.ASCII)


@dataclass
class Counters:
    """What is counted over the whole life of a run."""

    step: int = bounded(0, least=0)
    samples: int = bounded(0, least=0)
    skipped_steps: int = bounded(0, least=0)  # for a loss or gradient that was not finite
    nonfinite_in_a_row: int = bounded(0, least=0)
    run_id: str = ""  # by which trackers know the run

    def __post_init__(self) -> None:
        if not RUN_ID.fullmatch(self.run_id):
            raise ValueError(f"run_id: expected letters and digits, found {self.run_id!r}")

    def count(self, num_samples: int, is_finite: bool) -> None:
        """Count one step."""
        self.step += 1
        self.samples += num_samples
        self.skipped_steps += not is_finite
        self.nonfinite_in_a_row = 0 if is_finite else self.nonfinite_in_a_row + 1


@dataclass(frozen=True)
class Plain:
    """What state.json holds."""

    networks: dict[str, dict[str, Any]]  # what their exported files say in their headers
    optimizers: dict[str, dict[str, Any]]  # by player and parameter
    recipe: dict[str, Any]
    counters: Counters
    means: list[dict[str, list[tuple[float, float]]]]  # of each rank: (value, weight)
    exports: bool
    processes: int = bounded(1, least=1)

    def __post_init__(self) -> None:
        if strange := [name for name in self.networks if not NETWORK.fullmatch(name)]:
            raise ValueError(f"networks: expected the names of networks, found {strange[0]!r}")


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
        """Take back all but the data position (see `read_position`), whatever the number of ranks and the
        parallel mode were.

        Raises CheckpointError if it is the state of something else.
        """
        own = self.recipe.state_dict()  # by all ranks together, before any of them may fail
        shards, plain = Shards(folder), read_state(folder)
        networks = self._network_tensors()
        check_same(folder, networks, shards)
        loads = [OptimizerLoad(p, _of_player(folder, plain, p), shards) for p in self.players]
        with fits(folder, "recipe"):
            tensors = {name: shards.whole(name) for name in tensor_names(plain.recipe)}
            recipe = put_together(plain.recipe, tensors)
            check_alike(recipe, own, "recipe")
        shards.read(networks | {name: target for load in loads for name, target in load.targets.items()})
        with fits(folder, "optimizers"):
            for load in loads:
                load.finish()
        with fits(folder, "recipe"):
            self.recipe.load_state_dict(recipe)
        self.means.load_state_dict(plain.means, self.world.rank, self.world.size)
        for name, value in asdict(plain.counters).items():
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


def read_position(folder: Path, stream: Stream, world: World) -> None:
    """Take back the data position; what was counted by ranks that are no more goes to the first.

    With another number of ranks the stream finds out by itself what a position still means.
    Raises CheckpointError if it is the position of something else.
    """
    num_saved, rank, size = read_state(folder).processes, world.rank, world.size
    for each in [min(rank, num_saved - 1), *(range(size, num_saved) if rank == 0 else ())]:
        name = f"{rank_stem(each)}.json"
        with fits(folder, name):
            position = read_json(folder / name, MOST_PLAIN_BYTES)["data"]
            if each < size:
                stream.load_state_dict(position)
            else:
                stream.add_counts(position)
    if rank >= num_saved:  # the position is of another, which counts what it has read
        stream.taken.clear()


def rank_stem(rank: int) -> str:
    """What the names of a rank's files begin with."""
    return f"rank_{rank:05d}"


def read_state(folder: Path) -> Plain:
    """The plain part of a checkpoint's state. Raises CheckpointError when it cannot be read."""
    try:
        plain = from_plain(Plain, read_json(folder / STATE, MOST_PLAIN_BYTES))
        if plain.counters.step != step_of(folder):
            raise ConfigError(f"counters.step: expected {step_of(folder)}, found {plain.counters.step}")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / STATE}: cannot be read ({one_line(error)})") from error
    return plain


@contextmanager
def fits(folder: Path, what: str) -> Iterator[None]:
    """Raise CheckpointError, one line, for whatever is not as the objects within the context need it."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # each object has its own words and kinds
        raise CheckpointError(
            one_line(f"{folder}: its {what} does not fit ({type(error).__name__}: {error})")
        ) from error


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
        shown = "; ".join(problem[:200] for problem in problems[:3])
        raise CheckpointError(one_line(f"{folder}: of other networks or settings: {shown}{more}"))


def _of_player(folder: Path, plain: Plain, player: Player) -> Mapping[str, Any]:
    if player.name not in plain.optimizers:
        known = ", ".join(plain.optimizers)
        raise CheckpointError(one_line(f"{folder}: no optimizer of '{player.name}' in it (found: {known})"))
    return plain.optimizers[player.name]
