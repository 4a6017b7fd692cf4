"""Two ranks for every fate at once: fault_worker.py FOLDER writes FATE.json with their statuses and words.

The ranks are forked after torch is loaded, which takes longer than all they do.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from tests.integration.launching import place_rank
from train.config import ParallelConfig
from train.parallel import heartbeat, ranks
from train.parallel.world import conduct, join

heartbeat.GRACE_S = 1.0
DEAD_AFTER_S = 4.0
FATES = ("kill", "kill_first", "apart", "raise", "exit", "stop", "slow", "late")


def live(fate: str) -> int:
    """What a rank does: exchanges with the other, until one of them meets its fate."""
    world = join("cpu", ParallelConfig(dead_after_s=DEAD_AFTER_S))
    for turn in range(8):
        ranks.total(torch.ones(1000))
        if turn == 3 and world.rank == (fate != "kill_first"):
            meet(fate)
        if turn == 3 and fate == "apart" and world.rank == 0:
            time.sleep(600)  # busy with something of its own: no exchange fails
    if fate == "late" and world.rank == 1:
        time.sleep(1.0)
    print("through", flush=True)
    return 0


def meet(fate: str) -> None:
    if fate in ("kill", "kill_first", "apart"):
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "raise":
        raise ValueError("a picture\nof two lines")
    if fate == "exit":
        sys.exit(3)
    if fate == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fate == "slow":
        time.sleep(1.5 * DEAD_AFTER_S)  # at work: its heart beats


def start(folder: Path, fate: str, rank: int, port: int) -> int:
    """Fork one rank; returns its process."""
    if child := os.fork():
        return child
    words = os.open(folder / f"{fate}_{rank}.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(words, 1)
    os.dup2(words, 2)
    place_rank(rank, 2, port)
    conduct(lambda: live(fate))


def main(folder: Path, first_port: int) -> None:
    children = {
        (fate, rank): start(folder, fate, rank, first_port + index)
        for index, fate in enumerate(FATES)
        for rank in range(2)
    }
    stopped = children.pop(("stop", 1))
    statuses = {key: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for key, child in children.items()}
    os.kill(stopped, signal.SIGKILL)
    statuses["stop", 1] = os.waitstatus_to_exitcode(os.waitpid(stopped, 0)[1])
    told = {f"{fate}_{rank}": status for (fate, rank), status in statuses.items()}
    (folder / "statuses.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
