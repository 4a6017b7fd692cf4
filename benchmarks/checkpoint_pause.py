"""How long a checkpoint holds training up: saved in the background against waiting until it is on the disk.

python -m benchmarks.checkpoint_pause [--out FOLDER] [--gb 1.0] [--rounds 3]
torchrun --standalone --nproc-per-node=2 -m benchmarks.checkpoint_pause --mode fsdp

The state is weights, their averages, and both moments of AdamW, in fp32. Both ways take turns in one run, so
the ratio does not depend on what else the machine does; the steps meanwhile tell what the writing costs them.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from train.checkpoints.folders import Checkpoints
from train.checkpoints.saver import Saver
from train.config import EmaConfig, OptimConfig, ParallelConfig
from train.ema import Ema
from train.parallel.preparation import prepare, shard
from train.parallel.world import World, conduct, join
from train.player import Player
from train.state import Counters, TrainingState

WIDTH, BATCH = 2048, 8
COPIES = 4  # weights, average, two moments


class Layers(nn.Module):
    """Square layers, so many that they and all that is kept of them take the bytes that are asked for."""

    def __init__(self, state_bytes: float) -> None:
        super().__init__()
        count = max(1, round(state_bytes / COPIES / 4 / WIDTH**2))
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(count))
        self.config = {"count": count}

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).tanh()
        return x

    def shard_units(self) -> list[nn.Module]:
        return list(self.layers)


class Stub:
    """As much of a recipe and of a stream of data as a checkpoint asks for."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def networks(self) -> dict[str, nn.Module]:
        return {"layers": self.network}

    def prepared(self) -> list[nn.Module]:
        return [self.network]

    def facts(self, name: str) -> dict[str, Any]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}


def make_state(state_bytes: float, mode: str, world: World) -> TrainingState:
    network = Layers(state_bytes).to(world.device)
    parallel = ParallelConfig(mode=mode)  # type: ignore[arg-type]
    prepare([network], parallel, world)
    shard([network], [], parallel, world, "fp32")
    stub: Any = Stub(network)
    player = Player("model", network, OptimConfig(), world, seed=0)
    return TrainingState(stub, [player], Ema(network, EmaConfig()), stub, Counters(), world)


def step(state: TrainingState) -> float:
    """One training step; returns its seconds."""
    began = time.perf_counter()
    (player,) = state.players
    x = torch.randn(BATCH, WIDTH, device=state.world.device)
    player.update((player.module(x).square().mean() for _ in range(1)), 1, 1e-4, 1.0, state.counters.step)
    assert state.ema
    state.counters.step += 1
    state.ema.update(state.counters.step)
    return time.perf_counter() - began


def in_background(saver: Saver) -> dict[str, float]:
    """Save while steps go on. Returns the pause, the seconds of the whole save, and of a step meanwhile."""
    began = time.perf_counter()
    saver.save(exports=False)
    pause, steps = time.perf_counter() - began, []
    while (saved := saver.poll()) is None:
        steps.append(step(saver.state))
    return {"pause_s": pause, "in_all_s": saved.seconds, "step_s": statistics.median(steps or [0.0])}


def waiting(saver: Saver) -> float:
    began = time.perf_counter()
    saver.save(exports=False)
    saver.wait()
    return time.perf_counter() - began


def measure(saver: Saver, rounds: int) -> dict[str, Any]:
    quiet = statistics.median(step(saver.state) for _ in range(3))
    first = in_background(saver)  # makes the memory that all others use again
    pauses, blocking = [], []
    for _ in range(rounds):
        step(saver.state)
        blocking.append(waiting(saver))
        step(saver.state)
        pauses.append(in_background(saver))
    median = {key: statistics.median(each[key] for each in pauses) for key in first}
    waited = statistics.median(blocking)
    found = {"first_pause_s": first["pause_s"], **median, "blocking_s": waited, "quiet_step_s": quiet}
    found |= {"pause_share": median["pause_s"] / waited, "first_pause_share": first["pause_s"] / waited}
    return {name: round(value, 3) for name, value in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_pause", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder to write to (default: a temporary one)")
    parser.add_argument(
        "--gb", type=float, default=1.0, help="size of the state in 10^9 bytes, over all ranks"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mode", choices=["ddp", "fsdp"], default="ddp")
    settings = parser.parse_args()
    world = join("auto")
    folder = (settings.out or Path(tempfile.gettempdir())) / "checkpoint_pause"
    state = make_state(settings.gb * 1e9, settings.mode, world)
    saver = Saver(Checkpoints(folder, keep_last=1), state, folder, lambda text: None)
    found = {"processes": world.size, "mode": settings.mode, "gb": settings.gb}
    found |= measure(saver, settings.rounds)
    if world.is_first:
        print(json.dumps(found))
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    conduct(main)
