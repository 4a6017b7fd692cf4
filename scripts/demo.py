"""`make demo`: from nothing to pictures on a CPU, one ordinary command after the other.

python -m scripts.demo [--out outputs/demo]

Each command can be typed by itself. Finished ones are skipped when the demo is run again; a training that was
interrupted goes on where it stopped.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from dataset_tools.shards import write_whole

STAGES = ("stage_a", "stage_b", "previewer", "stage_c")
INTERRUPTED = 130  # exit status


def commands(out: Path) -> dict[str, list[str]]:
    """The demo's commands after `python -m`, by what they are for, in order."""
    data = [f"data.shards={out}/data/train"]
    runs = {
        f"Train {stage}": ["train", f"experiment=demo/{stage}", f"run.dir={out}/{stage}", *data]
        + [f"model.{name}.weights={out}/{run}" for name, run in frozen(stage).items()]
        for stage in STAGES
    }
    judge = ["scripts.evaluate", "--run", f"{out}", "--data", f"{out}/data/held_out"]
    return {
        "Draw the data": ["dataset_tools", "shapes", f"{out}/data"],
        **runs,
        "Draw held-out prompts and judge": [*judge, "--out", f"{out}/report.json"],
        "Write the report": ["scripts.report", f"{out}"],
    }


def frozen(stage: str) -> dict[str, str]:
    """The networks that a stage takes from earlier runs, and the run that holds each."""
    compressor = {"semantic_compressor": "stage_b"}
    return {
        "stage_a": {},
        "stage_b": {"stage_a": "stage_a"},
        "previewer": compressor,
        "stage_c": compressor | {"previewer": "previewer"},
    }[stage]


def run(title: str, command: list[str]) -> float:
    """Run one command in the foreground and return its seconds; ends the demo with its status if it fails."""
    print(f"\n── {title}\n   python -m {shlex.join(command)}", flush=True)
    started = time.monotonic()
    # Idle threads sleep instead of spinning: the data workers need the cores too.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen([sys.executable, "-m", *command], env=environment) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the command got it too: a training writes a checkpoint before it ends
            process.wait()
            print("\nThe demo stopped; started again, it goes on from here.", file=sys.stderr)
            sys.exit(INTERRUPTED)
    if status:
        print(f"The demo stopped: «{title}» ended with status {status}.", file=sys.stderr)
        sys.exit(status)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.demo", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/demo"), help="folder (default: %(default)s)"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    record = out / "timings.json"
    seconds: dict[str, float] = json.loads(record.read_text()) if record.is_file() else {}
    for title, command in commands(out).items():
        if title in seconds:
            print(f"── {title}: done before, in {seconds[title]:.0f} s")
            continue
        seconds[title] = round(run(title, command), 1)
        write_whole(record, json.dumps(seconds, indent=1) + "\n")
    print(
        f"\nDone in {sum(seconds.values()) / 60:.1f} minutes. Look at {out}/samples.png and {out}/report.html"
    )


if __name__ == "__main__":
    main()
