"""Stands in for srun: starts the processes of a step on this machine, with the environment that SLURM gives.

It hands signals on, and ends all processes when one ends badly (--kill-on-bad-exit), as srun does.
"""

import os
import signal
import subprocess
import sys
import time
from itertools import takewhile
from types import FrameType


def main(arguments: list[str]) -> int:
    options = list(takewhile(lambda argument: argument.startswith("--"), arguments))
    command = arguments[len(options) :]
    assert "--kill-on-bad-exit=1" in options, options
    size = next(int(option.partition("=")[2]) for option in options if option.startswith("--ntasks="))
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(size), "SLURM_STEP_NODELIST": "localhost"}
    tasks = [
        subprocess.Popen(
            command, env={**os.environ, **step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        )
        for rank in range(size)
    ]

    def hand_on(number: int, frame: FrameType | None) -> None:
        for task in tasks:
            task.send_signal(number)

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, hand_on)
    failed = 0  # the status of the first that ended badly, not of those that were killed for it
    while any(task.poll() is None for task in tasks):
        if not failed and (failed := next(filter(None, (task.poll() for task in tasks)), 0)):
            hand_on(signal.SIGKILL, None)
        time.sleep(0.05)
    return abs(failed or next(filter(None, (task.returncode for task in tasks)), 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
