"""Packing, and training with spawned workers, without what only Linux and other POSIX have.

The names are taken away from Python on Linux. It is no run on Windows, where much else differs.
"""

import csv
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.launching import environment, launched
from tests.integration.tiny_experiment import Call

# What is left is what Python and libraries themselves use on Linux (uname by numpy, resource by psutil,
# sysconf by asyncio).
TAKEN_AWAY = """
import multiprocessing, os, signal, sys
for name in ("fork", "forkpty", "getgid", "getegid", "killpg",
             "sched_getaffinity", "sched_setaffinity", "getloadavg", "statvfs", "mkfifo", "nice",
             "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "symlink", "setsid", "sync", "lockf"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("pthread_sigmask", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK", "SIGUSR1", "SIGUSR2", "SIGALRM",
             "SIGHUP", "SIGQUIT", "setitimer", "alarm", "sigwait", "pthread_kill"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("fcntl",):
    sys.modules[name] = None  # its import fails
multiprocessing.set_start_method("spawn")
"""


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python without these names, where text is not UTF-8 by itself."""
    folder = tmp_path_factory.mktemp("customised")
    (folder / "sitecustomize.py").write_text(TAKEN_AWAY, encoding="utf-8")
    own = environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="cp1252:strict")
    return {**own, "PYTHONPATH": os.pathsep.join([str(folder), own["PYTHONPATH"]])}


def works(around: dict[str, str], *words: object) -> str:
    done = launched([sys.executable, "-m", *words], env=around)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def packed(around: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards made of pictures in a folder."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"ein grüner Kreis № {number}", encoding="utf-8")
    shards = tmp_path_factory.mktemp("data") / "mine"
    works(around, "dataset_tools", "pack", folder, shards)
    assert "grüner Kreis №".encode() in (shards / "000000.tar").read_bytes()
    return shards


def test_the_names_are_gone(around: dict[str, str]) -> None:
    for gone in ("import fcntl", "import os; os.fork()", "import signal; signal.SIGUSR1"):
        assert launched([sys.executable, "-c", gone], env=around).returncode == 1
    asked = "import multiprocessing; print(multiprocessing.get_start_method())"
    assert launched([sys.executable, "-c", asked], env=around).stdout.split() == ["spawn"]


def test_a_training_reads_with_spawned_workers(around: dict[str, str], packed: Path, tmp_path: Path) -> None:
    settings = [
        "run.num_steps=2",
        "run.log_every=1",
        "run.save_every=2",
        "run.sample_every=2",
        "run.device=cpu",
    ]
    own = [f"data.shards={packed}", "data.num_workers=2", f"run.dir={tmp_path / 'run'}"]
    works(around, "train", "experiment=tiny/stage_a", *settings, *own)
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    for made in (
        "weights/stage_a.safetensors",
        "samples/step_00000002.png",
        "checkpoints/latest",
        "README.md",
    ):
        assert (tmp_path / "run" / made).is_file()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_spawned_workers_give_the_losses_and_weights_of_forked_ones(call: Call, tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    before = multiprocessing.get_start_method(allow_none=True)
    for method in ("fork", "spawn"):
        folder = tmp_path / method
        multiprocessing.set_start_method(method, force=True)
        try:
            settings = ["data.num_workers=2", "run.num_steps=4", "run.save_every=4", f"run.dir={folder}"]
            assert call("experiment=tiny", *settings) == 0
        finally:
            multiprocessing.set_start_method(before, force=True)
        with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = [(row["step"], row["loss"], row["gradient_norm"]) for row in csv.DictReader(file)]
        made[method] = rows, (folder / "weights" / "previewer.safetensors").read_bytes()
    assert len(made["fork"][0]) == 4 and made["fork"] == made["spawn"]
