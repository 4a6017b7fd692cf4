"""Starts the processes of runs for tests as launchers do."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

# Of what networks are made; loaded here once, and not by every process that is forked.
from torchvision.models import efficientnet  # noqa: F401
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection  # noqa: F401

from train.parallel.world import conduct

ROOT = Path(__file__).parents[2]
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LONG_S = 400.0  # far longer than anything takes on a machine that is busy
TORCHRUN_WAITS_S = 40.0
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


def launched(command: Sequence[object], **changes: Any) -> subprocess.CompletedProcess:
    """Run a program to its end; one that takes too long ends with all that it started."""
    with started(command, stdout=PIPE, stderr=PIPE, text=True, **changes) as process:
        try:
            out, err = process.communicate(timeout=LONG_S)
        except subprocess.TimeoutExpired:
            end(process)
            out, err = process.communicate()
            raise AssertionError(f"took more than {LONG_S:g} s: {out}{err}") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_ranks(worker: str, *arguments: object, size: int = 2, machines: int = 1) -> None:
    """Ranks that each call `main` of a module of this folder; machines: see `place_rank`."""
    # An output that is a view is an error: an operation in place would skip the gathering of weights.
    around = environment(PYTHONWARNINGS="error:FSDP2-wrapped module")
    words = [sys.executable, "-m", "tests.integration.forked_ranks", worker, size, machines, free_ports(1)]
    done = launched([*words, *arguments], env=around)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def started(command: Sequence[object], **changes: Any) -> Iterator[subprocess.Popen]:
    """A process that ends with the context, with all that it started. changes: as of Popen."""
    own: dict[str, Any] = {"cwd": ROOT, "env": environment(), "start_new_session": True}
    process = subprocess.Popen([str(word) for word in command], **{**own, **changes})
    try:
        yield process
    finally:
        if process.poll() is None:
            end(process)


def wait_for(process: subprocess.Popen, path: Path) -> None:
    """Until a file is there that a run writes after its first step."""
    latest = time.monotonic() + LONG_S
    while not path.exists():
        assert process.poll() is None and time.monotonic() < latest, "the training did not start"
        time.sleep(0.05)


def end(process: subprocess.Popen) -> None:
    """End a process that leads a session; torchrun hands SIGTERM on, and kills those who do not end by it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TORCHRUN_WAITS_S)
            break
    with suppress(ProcessLookupError):  # those whose leader has ended
        os.killpg(process.pid, signal.SIGKILL)


def fork(main: Callable[[], int], words: Path | None, place: tuple[int, ...] | None = None) -> int:
    """A child that has imported all that this process has, and runs `main`; returns its number.

    words: the file for what it says, if not where this process says it. place: as of `place_rank`.
    """
    if child := os.fork():
        return child
    if words:
        out = os.open(words, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
    if place:
        place_rank(*place)
    conduct(main)


def status_of(child: int) -> int:
    """Wait for a child; minus the number of the signal that ended it, or its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def place_rank(rank: int, size: int, port: int, machines: int = 1) -> None:
    """Make this process a rank, as a launcher does that keeps no store for the ranks.

    port: to meet at. machines: of how many equal ones this machine takes the part.
    """
    place = {"RANK": rank, "LOCAL_RANK": rank % (size // machines), "WORLD_SIZE": size, "MASTER_PORT": port}
    for name, value in place.items():
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
