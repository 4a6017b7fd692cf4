"""A disk that is full ends the run with one line on all ranks; the last good checkpoint is whole and used."""

import ctypes
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.full_disk_worker import FULL_AFTER
from tests.integration.launching import free_ports, launched
from train.checkpoints.folders import damage
from train.config import config_from_plain
from train.loop import run

WORKER = Path(__file__).parent / "full_disk_worker.py"


@pytest.fixture(scope="module")
def folder(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the runs wrote and said."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "settings.json").write_text(json.dumps(settings(shards, folder, 20)))
    words = [sys.executable, WORKER, folder, free_ports(1), folder / "settings.json"]
    try:
        done = launched(words)
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder
    finally:
        if (folder / "disk").is_mount():
            ctypes.CDLL(None).umount2(bytes(folder / "disk"), 2)  # lazily


def settings(shards: Path, run_folder: Path, num_steps: int) -> dict[str, Any]:
    shapes = {"image_size_px": 32, "multiple_px": 32, "aspect_ratios": ["1/1"]}
    reading = {"batch_size": 4, "num_workers": 0, "split": "samples"}
    times = {"num_steps": num_steps, "save_every": 2}
    return {
        "name": "test",
        "run": {"dir": str(run_folder), "num_samples": 2, "device": "cpu", **times},
        "recipe": {"name": "colour"},
        "data": {"shards": str(shards), **shapes, **reading},
    }


def test_a_file_that_cannot_grow_ends_all_ranks_with_one_line(folder: Path, shards, colour_recipe) -> None:
    said = [(folder / f"limit_{rank}.txt").read_text() for rank in range(2)]
    assert json.loads((folder / "statuses.json").read_text())["limit"] == [1, 1], said
    errors = [line for line in "".join(said).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in "".join(said), said
    assert "step_00000004: not written: rank 1: OSError: [Errno 27] File too large" in errors[0]
    assert errors[0].endswith(
        "the last good one is step_00000002; make room and start the same command again"
    )
    start = json.loads((folder / "run" / "run.json").read_text())["starts"][0]
    assert start["error"].startswith("CheckpointError: ")
    check_last_good(folder / "run", shards, colour_recipe)


def test_a_full_disk_does_so_too(folder: Path, shards, colour_recipe) -> None:
    statuses = json.loads((folder / "statuses.json").read_text())
    if "disk" not in statuses:
        pytest.skip("a small file system can be mounted by root alone")
    said = (folder / "disk_0.txt").read_text()
    assert statuses["disk"] == [1], said
    # Or sooner: the disk may be full while the networks of the step before are still exported.
    what = r"(step_00000004: not written: rank 0: OSError|not exported from step_00000002, which is whole)"
    assert re.search(what + r": \[Errno 28\] No space left on device", said), said
    (folder / "disk" / "filler").unlink()
    check_last_good(folder / "disk" / "run", shards, colour_recipe)


def check_last_good(run_folder: Path, shards: Path, colour_recipe) -> None:
    checkpoints = run_folder / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["latest", "step_00000002"]
    assert damage(checkpoints / "step_00000002") is None
    plain = settings(shards, run_folder, FULL_AFTER + 1)
    assert run(config_from_plain(plain), colour_recipe()).step == FULL_AFTER + 1
    starts = json.loads((run_folder / "run.json").read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 2]
