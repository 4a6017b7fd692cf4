"""`make demo` as a chain of commands: stopped in good order, it can go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TRAINING = """
import signal, time
stopped = False
def stop(number, frame):
    global stopped
    stopped = True
signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
while not stopped:
    time.sleep(0.01)
time.sleep(1)  # longer than subprocess waits by itself
open("checkpoint", "w").close()
"""
DEMO = """
import signal
from scripts.chain import run
signal.signal(signal.SIGINT, signal.default_int_handler)
run("Train", ["training"])
"""


def test_ctrl_c_lets_a_training_write_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text(TRAINING)
    process = subprocess.Popen(
        [sys.executable, "-c", DEMO],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal's foreground job has
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "ready":
        pass
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert (tmp_path / "checkpoint").is_file()
    assert errors.strip() == "The demo stopped; started again, it goes on from here."
