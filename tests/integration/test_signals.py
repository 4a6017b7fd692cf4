"""Asked to end, a run saves itself and ends well, whenever it is asked; the same command goes on."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.launching import LONG_S, TORCHRUN, free_ports, launched, started, wait_for
from tests.integration.recipe_cases import RECIPES

HERE = Path(__file__).parent
BEFORE = "asked to end before the first step: nothing to save; the same command starts again"
AFTER = "asked to end: saved after step {}; the same command goes on from there"
SAVED = {  # case: the step after which the run is saved
    "ready": 0,
    "step": 3,
    "int": 3,
    "usr1": 3,
    "both": 3,  # SLURM sends one ahead of the other
    "sheet": 5,  # the sheet of step 4 is finished, and so is the next step
    "saving": 5,
    "one_of_two": 3,
}
Words = dict[str, str]


def settings(shards: Path, folder: Path) -> dict[str, Any]:
    return {
        "name": "test",
        "run": {
            "dir": str(folder / "run"),
            "num_steps": 12,
            "log_every": 100,
            "save_every": 4,
            "sample_every": 4,
            "num_samples": 1,
            "device": "cpu",
        },
        "data": {
            "shards": str(shards),
            "image_size_px": 32,
            "aspect_ratios": ["1/1"],
            "batch_size": 2,
            "num_workers": 0,
            "split": "samples",
        },
        **RECIPES["previewer"],
    }


@pytest.fixture(scope="module")
def folder(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases have been lived through in it."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "settings.json").write_text(json.dumps(settings(shards, folder)))
    command = [sys.executable, HERE / "signal_worker.py", folder, folder / "settings.json", free_ports(1)]
    done = launched(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("case", SAVED)
def test_a_run_that_is_asked_to_end_is_saved_and_says_how_to_go_on(folder: Path, case: str) -> None:
    said = (folder / f"{case}_0.txt").read_text()
    assert json.loads((folder / "statuses.json").read_text())[f"{case}_0"] == 0, said
    told = AFTER.format(SAVED[case]) if SAVED[case] else BEFORE
    assert said.count("asked to end") == 1 and told in said
    latest = folder / case / "checkpoints" / "latest"
    assert not SAVED[case] or latest.read_text() == f"step_{SAVED[case]:08d}"
    assert latest.exists() == bool(SAVED[case])
    start = json.loads((folder / case / "run.json").read_text())["starts"][-1]
    assert start["interrupted"] is True and start["step"] == SAVED[case]


def test_all_ranks_end_after_the_same_step_when_one_is_asked(folder: Path) -> None:
    statuses = json.loads((folder / "statuses.json").read_text())
    assert statuses["one_of_two_0"] == statuses["one_of_two_1"] == 0
    assert "asked" not in (folder / "one_of_two_1").with_suffix(".txt").read_text()


def test_the_second_signal_acts_as_usual(folder: Path) -> None:
    assert json.loads((folder / "statuses.json").read_text())["twice_0"] == -signal.SIGTERM


ALONE = pytest.param([sys.executable], marks=pytest.mark.slow)  # test_slurm.py does so too


@pytest.mark.parametrize("launcher", [ALONE, [*TORCHRUN, "--standalone", "--nproc-per-node=2"]])
def test_the_command_ends_well(launcher: list[str], shards: Path, tmp_path: Path) -> None:
    plain = settings(shards, tmp_path)
    plain["run"] |= {"num_steps": 100_000, "save_every": 100_000, "sample_every": 0, "log_every": 1}
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "small.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump(plain)
    )
    command = [*launcher, "-m", "train", f"--config-dir={tmp_path / 'configs'}", "experiment=small"]
    words = (tmp_path / "words.txt").open("w")
    with words, started(command, stdout=words, stderr=words) as process:
        wait_for(process, tmp_path / "run" / "metrics.csv")
        process.terminate()
        process.wait(LONG_S)
    said = (tmp_path / "words.txt").read_text()
    assert said.count("asked to end: saved after step") == 1 and "error:" not in said, said
    assert launcher == [sys.executable] or "exitcode" not in said, said
    assert (tmp_path / "run" / "checkpoints" / "latest").exists()
    # torchrun itself counts as ended by the signal; its processes do not count as failed.
    assert process.returncode == (0 if launcher == [sys.executable] else 1)
