"""scripts/train.sbatch as SLURM runs it, with stand-ins for srun and scontrol and real processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.launching import LONG_S, ROOT, environment, free_ports, started, wait_for
from tests.integration.recipe_cases import RECIPES

HERE = Path(__file__).parent
SCRIPT = ROOT / "scripts" / "train.sbatch"
Job = Callable[..., AbstractContextManager[subprocess.Popen]]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Starts the script in an allocation of one node with two tasks; keywords are more of its environment."""
    programs = tmp_path / "programs"
    programs.mkdir()
    srun = f'#!/bin/sh\nexec {sys.executable} {HERE / "slurm_stand_in.py"} "$@"\n'
    scontrol = f'#!/bin/sh\necho "$@" >> {tmp_path / "scontrol.txt"}\n'
    for name, text in {"srun": srun, "scontrol": scontrol}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    @contextmanager
    def start(*arguments: str, **changes: str) -> Iterator[subprocess.Popen]:
        surroundings = environment(SLURM_JOB_NUM_NODES="1", SLURM_NTASKS="2", SLURM_JOB_NODELIST="localhost")
        surroundings |= {"SLURM_JOB_ID": "4711", "SLURM_SUBMIT_DIR": str(ROOT), "PYTHON": sys.executable}
        surroundings |= {"MASTER_PORT": str(free_ports(1)), "PATH": f"{programs}:{surroundings['PATH']}"}
        script = tmp_path / "slurm_script"  # sbatch copies it somewhere else
        script.write_text(SCRIPT.read_text())
        command = ["bash", script, *arguments]
        with (tmp_path / "job.txt").open("w") as words:
            places: dict[str, Any] = {"cwd": tmp_path, "stdout": words, "stderr": words}
            with started(command, env=surroundings | changes, **places) as process:
                yield process

    return start


def test_the_job_saves_itself_ahead_of_the_end_of_its_time_and_queues_again(
    job: Job, shards: Path, tmp_path: Path
) -> None:
    run = {
        "dir": str(tmp_path / "run"),
        "num_steps": 10**6,
        "log_every": 1,
        "num_samples": 1,
        "device": "cpu",
    }
    data = {"shards": str(shards), "image_size_px": 32, "aspect_ratios": ["1/1"], "batch_size": 2}
    plain = {"name": "small", "run": run, "data": data | {"num_workers": 0, "split": "samples"}}
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "small.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump({**plain, **RECIPES["previewer"]})
    )
    with job(f"--config-dir={tmp_path / 'configs'}", "experiment=small") as process:
        wait_for(process, tmp_path / "run" / "metrics.csv")
        process.send_signal(signal.SIGUSR1)
        said = f"{process.wait(LONG_S)}: {(tmp_path / 'job.txt').read_text()}"
    assert process.returncode == 0 and said.count("asked to end: saved after step") == 1, said
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"
    start = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][-1]
    assert start["processes"] == 2 and start["interrupted"] is True


@pytest.mark.parametrize(
    ("surroundings", "status", "said"),
    [
        ({"SLURM_JOB_ID": ""}, 2, "error: SLURM_JOB_ID: missing; start this file with sbatch"),
        ({"SLURM_SUBMIT_DIR": "/"}, 2, "error: /: expected the repository's root; call sbatch there"),
        (
            {"SLURM_GPUS_ON_NODE": "8"},
            2,
            "error: --ntasks-per-node: expected one per GPU, found 2 on 1 nodes",
        ),
        ({"PYTHON": "no-python"}, 2, "error: no-python: not found"),
        ({"PYTHON": "false"}, 1, "job 4711: 2 processes on localhost, start 1"),
        ({"PYTHON": "true", "SLURM_RESTART_COUNT": "2"}, 0, "job 4711: 2 processes on localhost, start 3"),
    ],
)
def test_the_job_ends_with_its_status_and_does_not_queue_again(
    job: Job, tmp_path: Path, surroundings: dict[str, str], status: int, said: str
) -> None:
    with job("experiment=small", **surroundings) as process:
        assert process.wait(LONG_S) == status
    assert (tmp_path / "job.txt").read_text().startswith(said)
    assert not (tmp_path / "scontrol.txt").exists()
