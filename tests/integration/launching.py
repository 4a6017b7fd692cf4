"""Starts the processes of runs for tests as launchers do."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from train.parallel.world import conduct

ROOT = Path(__file__).parents[2]
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def environment(**changes: str) -> dict[str, str]:
    """For a process that shares the cores with others, and stands in no run yet."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHED and not name.startswith(("SLURM_", "TORCHELASTIC_", "GLOO_"))
    }
    # A rank that aborts says where it was.
    own = {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    shared = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return {**kept, **own, **shared, **changes}


def launched(command: list[str], timeout_s: float) -> subprocess.CompletedProcess:
    """Run a launcher to its end; one that takes too long ends with the processes that it started."""
    started = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, err = started.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        started.terminate()  # torchrun hands it on, and kills those who do not end
        out, err = started.communicate()
        raise AssertionError(f"took more than {timeout_s:g} s: {out}{err}") from None
    return subprocess.CompletedProcess(command, started.returncode, out, err)


def fork(main: Callable[[], int], words: Path, place: tuple[int, int, int] | None = None) -> int:
    """A child that has imported all that this process has, and runs `main`; returns its number.

    words: the file for what it says. place: its rank, the number of ranks, the port to meet at.
    """
    if child := os.fork():
        return child
    out = os.open(words, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if place:
        place_rank(*place)
    conduct(main)


def status_of(child: int) -> int:
    """Wait for a child; minus the number of the signal that ended it, or its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def place_rank(rank: int, size: int, port: int) -> None:
    """Make this process a rank, as a launcher does that keeps no store for the ranks."""
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}.items():
        os.environ[name] = str(value)
    os.environ["MASTER_ADDR"] = "127.0.0.1"


def free_ports(count: int) -> int:
    """The first of some free ports in a row, where no outgoing connection gets one."""
    first = 10000 + os.getpid() * 64 % 20000
    while not all(map(_is_free, range(first, first + count))):
        first += count
    return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
