"""A chain of commands, one after the other in the foreground; run again, it goes on where it stopped."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from modules.schema import one_line
from modules.weights.plain_data import read_json
from modules.whole_files import write_whole

MISTAKE, INTERRUPTED = 2, 130  # exit status


def run_chain(steps: Mapping[str, Sequence[str]], record: Path) -> dict[str, float]:
    """Run the commands (what follows `python -m`) by title; returns the seconds that each took.

    record: a JSON file of these seconds; a step that is in it is finished and left out. Ends the program with
    one line where it cannot be had.
    """
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        seconds: dict[str, float] = read_json(record) if record.is_file() else {}
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        sys.exit(MISTAKE)
    for title, command in steps.items():
        if title in seconds:
            print(f"── {title}: done before, in {seconds[title]:.0f} s")
            continue
        seconds[title] = round(run(title, command), 1)
        write_whole(record, json.dumps(seconds, indent=1) + "\n")
    return {title: seconds[title] for title in steps}


def run(title: str, command: Sequence[str]) -> float:
    """Run one command and return its seconds; ends the chain with its status if it fails."""
    print(f"\n── {title}\n   python -m {shlex.join(command)}", flush=True)
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", *command]) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the command got it too: a training writes a checkpoint before it ends
            process.wait()
            stop_here()
    if status:
        print(f"The demo stopped: «{title}» ended with status {status}.", file=sys.stderr)
        sys.exit(status)
    if was_interrupted(command):
        stop_here()
    return time.monotonic() - started


def was_interrupted(command: Sequence[str]) -> bool:
    """Whether a training that ended well did so because it was asked to: that is in its record only."""
    folders = [argument.removeprefix("run.dir=") for argument in command if argument.startswith("run.dir=")]
    if command[0] != "train" or not folders:
        return False
    return bool(
        json.loads((Path(folders[-1]) / "run.json").read_text(encoding="utf-8"))["starts"][-1]["interrupted"]
    )


def stop_here() -> NoReturn:
    """End the chain in a place from which it goes on."""
    print("\nThe demo stopped; started again, it goes on from here.", file=sys.stderr)
    sys.exit(INTERRUPTED)
