"""The harnesses of this folder in their short forms: what is killed goes on as if nothing had been."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def harness(name: str, *arguments: str) -> str:
    """What `python -m tests.faults.NAME` says, which must find nothing wrong."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", f"tests.faults.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readers_of_exact_epochs_that_are_killed_read_every_sample_once() -> None:
    """1, 2 and 3 ranks with 0, 1 and 2 workers, by samples and by shards."""
    assert "18 readings; 0 problems" in harness("epochs", "--kills", "18", "--of-one", "2")


def test_runs_that_are_killed_end_as_if_they_had_been_left_alone() -> None:
    """A run of one process and one of two, killed with SIGKILL in steps and saves."""
    arguments = ("--recipe", "stage_c", "--kills", "6", "--of-one", "3", "--modes", "ddp", "--styles", "busy")
    assert "; 0 problems" in harness("kills", *arguments)
