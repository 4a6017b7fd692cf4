"""Two ranks for every fate at once: fault_worker.py FOLDER writes what they say, and statuses.json.

The ranks are forked after torch is loaded, which takes longer than all they do.
"""

import atexit
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch

from tests.integration.launching import fork, status_of
from train.__main__ import MISTAKE, say
from train.config import ParallelConfig
from train.parallel import heartbeat, ranks
from train.parallel.world import join

SILENT_S = 6.0  # for the fates that are about silence; the others may take their time on a busy machine
LEAVING = tuple(f"leave{launch}" for launch in range(6))
STUCK = ("apart", "stop")  # the other rank cannot end by itself
FATES = (
    *("kill", "kill_first", "raise", "raise_first", "mistake", "exit", *STUCK, "slow", "late", "plain"),
    *LEAVING,
)


def live(fate: str) -> int:
    """What a rank does: exchanges with the other, until one of them meets its fate."""
    if fate in STUCK:
        heartbeat.GRACE_S = 1.0
    world = join("cpu", ParallelConfig(dead_after_s=SILENT_S if fate in ("stop", "slow") else 60.0))
    if fate in LEAVING:
        atexit.register(print, "closed")  # into the buffer, like all that is said here
    for turn in range(8):
        ranks.total(torch.ones(1000))
        if turn == 3 and world.rank == (not fate.endswith("_first")):
            meet(fate.removesuffix("_first"))
        if turn == 3 and fate == "mistake":  # that both find, one much sooner
            time.sleep(4.0 * world.rank)
            return say("data.shards: nothing there", MISTAKE)
        if turn == 3 and fate == "apart" and world.rank == 0:
            time.sleep(600)  # busy with something of its own: no exchange fails
    if fate == "late" and world.rank == 1:
        time.sleep(1.0)
    print("through")
    if fate == "plain":  # as an interpreter that nobody ends by `leave`
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(0)
    return 0


def meet(fate: str) -> None:
    if fate in ("kill", "apart"):
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "raise":
        raise ValueError("a picture\nof two lines")
    if fate == "exit":
        sys.exit(3)
    if fate == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fate == "slow":
        time.sleep(1.3 * SILENT_S)  # at work: its heart beats


def main(folder: Path, first_port: int) -> None:
    children = {
        f"{fate}_{rank}": fork(
            partial(live, fate), folder / f"{fate}_{rank}.txt", (rank, 2, first_port + index)
        )
        for index, fate in enumerate(FATES)
        for rank in range(2)
    }
    stopped = children.pop("stop_1")
    statuses = {name: status_of(child) for name, child in children.items()}
    os.kill(stopped, signal.SIGKILL)
    statuses["stop_1"] = status_of(stopped)
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
