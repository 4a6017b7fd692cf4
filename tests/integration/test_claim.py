"""One training at a time in a run's folder, whoever started it and however it ended."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train
from modules.schema import ConfigError
from tests.integration.tiny_experiment import Call
from train.claim import Claim

ROOT = Path(train.__file__).parents[1]
HOLDER = """\
import os, sys, time
from pathlib import Path
from train.claim import Claim
claim = Claim(Path(sys.argv[1]))
claim.hold()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(600)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains there and has a data worker; both are ended afterwards."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT)
    assert process.stdout
    worker = int(process.stdout.readline())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        subprocess.run(["kill", "-9", str(worker)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_a_second_start_is_refused_until_the_first_ends(call: Call, tmp_path: Path, capfd) -> None:
    out = tmp_path / "out"
    out.mkdir()
    left_behind = out / "checkpoints" / "step_00000009.unfinished"
    left_behind.mkdir(parents=True)
    with holder(out) as other:
        assert call("experiment=tiny") == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1 and f"being trained in by process {other.pid} on " in error
        assert left_behind.exists()
        other.kill()
        other.wait()  # its worker lives on
        assert call("experiment=tiny") == 0
        assert not left_behind.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_a_claim_is_let_go_and_may_be_held_twice(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    claim.hold()
    claim.hold()
    program = HOLDER.replace("child = os.fork()", "sys.exit()")
    command = [sys.executable, "-c", program, str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT)
    assert ConfigError.__name__ in refused.stderr and "wait for its end" in refused.stderr
    claim.let_go()
    claim.let_go()
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_a_run_that_ended_has_let_go(call: Call, tmp_path: Path) -> None:
    assert call("experiment=tiny") == 0
    with holder(tmp_path / "out"):  # else it would say so and end
        pass
