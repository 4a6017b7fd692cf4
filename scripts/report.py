"""One page about a folder of runs: what was drawn, how right it is, and how the training went.

python -m scripts.report outputs/demo

Reads what the runs and `scripts.evaluate` left there; writes report.html, which needs no other file.
"""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from modules.command_lines import Parser
from modules.schema import one_line
from modules.whole_files import write_whole
from scripts.page import page, picture, table


def read_losses(path: Path) -> tuple[list[int], list[float]]:
    """Steps and losses of a metrics.csv (of two players, the first's), where there is one."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = [name for name in reader.fieldnames or [] if name == "loss" or name.endswith("/loss")]
        rows = [row for row in reader if names and row[names[0]]]
    return [int(row["step"]) for row in rows], [float(row[names[0]]) for row in rows]


def smooth(values: list[float]) -> list[float]:
    """Mean over neighbours: about a twentieth of the curve around each value."""
    reach = len(values) // 40
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def loss_plot(runs: list[Path]) -> bytes:
    """A PNG with the loss curve of every run, side by side."""
    figure, axes = plt.subplots(
        1, len(runs), figsize=(3.4 * len(runs), 2.8), squeeze=False, layout="constrained"
    )
    for axis, run in zip(axes[0], runs, strict=True):
        steps, losses = read_losses(run / "metrics.csv")
        axis.plot(steps, losses, color="#bbb", linewidth=0.8)
        axis.plot(steps, smooth(losses), color="#2a5bd7")
        axis.set(title=run.name.replace("_", " "), xlabel="step", yscale="log")
    axes[0][0].set_ylabel("loss")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def headline(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The report's figures in words."""
    rows = []
    if prompts := report.get("prompts"):
        for name, share in prompts["accuracy"].items():
            rows.append(
                (f"{name.replace('_', ' ')} right, {prompts['num_pictures']} prompts", f"{share:.1%}")
            )
    if scores := report.get("reconstruction"):
        for name, path in (("stage_a", "Stage A alone"), ("cascade", "compressor, B, A")):
            rows.append((f"reconstruction through {path}", f"{scores[name]['psnr']:.1f} dB"))
    return rows


def sections(folder: Path) -> list[str]:
    """The page's parts, of whatever the folder holds."""
    parts = []
    report = (
        json.loads(path.read_text(encoding="utf-8")) if (path := folder / "report.json").is_file() else {}
    )
    if (path := folder / "samples.png").is_file():
        parts += [
            "<h2>Drawn from prompts never seen in training</h2>",
            picture(path.read_bytes(), "Prompt under each picture"),
        ]
    if rows := headline(report):
        parts += ["<h2>How right</h2>", table(rows)]
    if (path := folder / "reconstructions.png").is_file():
        parts += [
            "<h2>Reconstructions of held-out pictures</h2>",
            picture(path.read_bytes(), "Original, through Stage A, through the whole chain"),
        ]
    runs = sorted(
        (path.parent for path in folder.glob("*/metrics.csv")),
        key=lambda run: (run / "run.json").stat().st_mtime,
    )
    if runs:
        parts += [
            "<h2>Training</h2>",
            picture(loss_plot(runs), "Loss by step (grey: as reported, blue: smoothed)"),
        ]
    for run in runs:
        if sheets := sorted((run / "samples").glob("*.png")):
            parts.append(
                picture(sheets[-1].read_bytes(), f"{run.name}: last sample sheet ({sheets[-1].stem})")
            )
    if (path := folder / "timings.json").is_file():
        timings = json.loads(path.read_text(encoding="utf-8"))
        parts += ["<h2>Time</h2>", table([(name, f"{seconds:.0f} s") for name, seconds in timings.items()])]
    return parts


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m scripts.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of runs")
    folder = parser.parse_args(arguments).folder
    try:
        parts = sections(folder) if folder.is_dir() else []
    except (ValueError, OSError) as error:  # of a run's files
        print("error:", one_line(error), file=sys.stderr)
        return 2
    if not parts:
        print(f"error: {folder} holds no runs and no report to write about", file=sys.stderr)
        return 2
    write_whole(folder / "report.html", page(f"Kaskade: {folder.name}", parts))
    print(folder / "report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
