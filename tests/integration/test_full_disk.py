"""A disk that is full ends the run with one line on all ranks; the last good checkpoint is whole and used."""

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.full_disk_worker import FULL_AFTER
from tests.integration.launching import environment, free_ports
from train.checkpoints.folders import damage
from train.config import config_from_plain
from train.loop import run

WORKER = Path(__file__).parent / "full_disk_worker.py"


@pytest.fixture
def folder(plain_config, tmp_path: Path) -> Iterator[Path]:
    """What the runs wrote and said."""
    settings = plain_config(run={"save_every": 2, "num_steps": 20})
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    words = [sys.executable, str(WORKER), str(tmp_path), str(free_ports(1)), str(tmp_path / "settings.json")]
    try:
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        yield tmp_path
    finally:
        ctypes.CDLL(None).umount2(bytes(tmp_path / "disk"), 2)  # lazily; nothing is mounted for most users


def test_the_run_ends_with_a_line_and_goes_on_from_the_last_good_checkpoint(
    folder: Path, plain_config, colour_recipe
) -> None:
    statuses = json.loads((folder / "statuses.json").read_text())
    said = [(folder / f"limit_{rank}.txt").read_text() for rank in range(2)]
    assert statuses["limit"] == [1, 1], said
    errors = [line for line in "".join(said).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in "".join(said), said
    assert "step_00000004: not written: rank 1: OSError: [Errno 27] File too large" in errors[0]
    assert errors[0].endswith(
        "the last good one is step_00000002; make room and start the same command again"
    )
    check_last_good(folder / "run", plain_config, colour_recipe)
    start = json.loads((folder / "run" / "run.json").read_text())["starts"][0]
    assert start["error"].startswith("CheckpointError: ")
    if "disk" in statuses:
        said = (folder / "disk_0.txt").read_text()
        assert statuses["disk"] == [1], said
        assert "step_00000004: not written: rank 0: OSError: [Errno 28] No space left on device" in said
        (folder / "disk" / "filler").unlink()
        check_last_good(folder / "disk" / "run", plain_config, colour_recipe)


def check_last_good(run_folder: Path, plain_config, colour_recipe) -> None:
    checkpoints = run_folder / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["latest", "step_00000002"]
    assert damage(checkpoints / "step_00000002") is None
    own = {"dir": str(run_folder), "num_steps": FULL_AFTER + 1, "save_every": 2}
    assert run(config_from_plain(plain_config(run=own)), colour_recipe()).step == FULL_AFTER + 1
    starts = json.loads((run_folder / "run.json").read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 2]
