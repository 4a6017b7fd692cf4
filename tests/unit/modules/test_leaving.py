"""Ending a process while a thread computes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
AT_WORK = """\
import sys, threading, time
import torch
from modules.leaving import leave_at_once

def work():
    while True:
        matrix @ matrix

torch.set_num_threads(1)
matrix = torch.randn(1500, 1500)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
print("printed", end="")
leave_at_once(int(sys.argv[1]))
"""


@pytest.mark.parametrize("status", [0, 2])
def test_a_thread_at_work_changes_nothing(status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_WORK, str(status)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "printed", "")
