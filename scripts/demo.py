"""`make demo`: from nothing to pictures on a CPU, one ordinary command after the other.

python -m scripts.demo [--out outputs/demo]

Each command can be typed by itself. Finished ones are skipped when the demo is run again; a training that was
interrupted goes on where it stopped.
"""

from collections.abc import Mapping
from pathlib import Path

from modules.command_lines import Parser
from scripts.chain import run_chain

# The networks that a stage takes from earlier runs, and the run that holds each.
COMPRESSOR = {"semantic_compressor": "stage_b"}
STAGES: dict[str, dict[str, str]] = {
    "stage_a": {},
    "stage_b": {"stage_a": "stage_a"},
    "previewer": COMPRESSOR,
    "stage_c": COMPRESSOR | {"previewer": "previewer"},
}


def commands(out: Path) -> dict[str, list[str]]:
    """The demo's commands after `python -m`, by what they are for, in order."""
    judge = ["scripts.evaluate", "--run", f"{out}", "--data", f"{out}/data/held_out"]
    return {
        "Draw the data": ["dataset_tools", "shapes", f"{out}/data"],
        **{f"Train {stage}": training(stage, networks, out) for stage, networks in STAGES.items()},
        "Draw held-out prompts and judge": [*judge, "--out", f"{out}/report.json"],
        "Write the report": ["scripts.report", f"{out}"],
    }


def training(name: str, networks: Mapping[str, str], out: Path, data: str = "data/train") -> list[str]:
    """The command that trains experiment demo/<name> into out/<name>.

    networks: what it takes from earlier runs, and the run of each. data: the folder in `out` with its shards.
    """
    weights = [f"model.{network}.weights={out}/{run}" for network, run in networks.items()]
    return [
        "train",
        f"experiment=demo/{name}",
        f"run.dir={out}/{name}",
        f"data.shards={out}/{data}",
        *weights,
    ]


def parse_out(module: str, description: str) -> Path:
    """The folder that the command line of `python -m module` names for everything."""
    parser = Parser(prog=f"python -m {module}", description=description)
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/demo"), help="folder (default: %(default)s)"
    )
    out: Path = parser.parse_args().out
    return out


def main() -> None:
    out = parse_out("scripts.demo", "From nothing to pictures: data, training, drawing, judging.")
    seconds = run_chain(commands(out), out / "timings.json")
    print(
        f"\nDone in {sum(seconds.values()) / 60:.1f} minutes. Look at {out}/samples.png and {out}/report.html"
    )


if __name__ == "__main__":
    main()
