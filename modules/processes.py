"""Where this process stands among those that a launcher started for one command."""

import os
import re
from typing import NamedTuple


class Place(NamedTuple):
    """Where this process stands among those of the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine


def place() -> Place:
    """From the environment of torchrun, else of srun, else a single process."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return Place(int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0)))
    if "SLURM_PROCID" in env and int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # set by srun, not by sbatch
        env.setdefault("MASTER_ADDR", first_node(env["SLURM_STEP_NODELIST"]))
        # Every step of every job has its own: several may run on one node.
        step = int(env["SLURM_JOB_ID"]) + 1009 * int(env.get("SLURM_STEP_ID", 0))
        env.setdefault("MASTER_PORT", str(20000 + step % 20000))
        return Place(int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_LOCALID"]))
    return Place()


def first_node(nodes: str) -> str:
    """The first of nodes as SLURM writes them: gpu[07-09,12],big1 → gpu07."""
    first = re.match(r"([^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0]) if first else nodes
