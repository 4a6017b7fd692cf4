"""A sweep whose jobs submitit starts, on this machine, as it starts them on a cluster."""

import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.integration.launching import launched
from tests.integration.tiny_experiment import write_tiny_experiment

SHORT = ("run.num_steps=1", "run.save_every=1", "run.sample_every=0")


@pytest.fixture
def configs(shards: Path, tmp_path: Path) -> Path:
    """A folder with an experiment `tiny`."""
    return write_tiny_experiment(tmp_path, shards)


def sweep(configs: Path, *arguments: str) -> CompletedProcess:
    launcher = ["--multirun", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
    command = [sys.executable, "-m", "train", f"--config-dir={configs}", *launcher, "experiment=tiny"]
    return launched([*command, *SHORT, *arguments], cwd=configs.parent)


def logs(configs: Path) -> str:
    """What all jobs wrote to stderr, as submitit keeps it."""
    return "".join(path.read_text() for path in (configs.parent / "out").glob(".submitit/*/*_log.err"))


def test_every_job_of_a_sweep_completes_in_its_folder(configs: Path) -> None:
    done = sweep(configs, "run.seed=1,2")
    assert done.returncode == 0, done.stderr + logs(configs)
    runs = {path.name.split(",")[-1]: path for path in (configs.parent / "out").glob("run.*")}
    assert runs.keys() == {"run.seed=1", "run.seed=2"}
    for run in runs.values():
        assert (run / "weights" / "previewer.safetensors").exists()
        assert (run / "checkpoints" / "latest").read_text() == "step_00000001"


def test_a_job_that_fails_is_told_of(configs: Path) -> None:
    done = sweep(configs, "run.precision=fp61")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.endswith("\nerror: a job ended with status 2; its log says why\n")
    assert "error: run.precision: found 'fp61'; did you mean" in logs(configs)
    assert {path.name for path in (configs.parent / "out").iterdir()} == {".submitit", "multirun.yaml"}
    assert {path.name for path in configs.parent.iterdir()} == {
        "configs",
        "out",
    }  # nothing where it was typed
