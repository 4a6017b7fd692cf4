"""What a training leaves in its folder, read back for plots: metrics and checkpoints."""

import csv
import math
from pathlib import Path


def read_metrics(run: str | Path) -> dict[str, list[float]]:
    """The columns of a run's metrics.csv by name, NaN where nothing was said. Raises FileNotFoundError."""
    with (Path(run) / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or math.nan) for row in rows] for name in (rows[0] if rows else ())}


def checkpoints_of(run: str | Path) -> dict[int, Path]:
    """A run's checkpoints by their step, in order; those that were never finished have a longer name."""
    found = (Path(run) / "checkpoints").glob("step_*")
    steps = {path.name.removeprefix("step_"): path for path in found}
    return dict(sorted((int(step), path) for step, path in steps.items() if step.isdecimal()))
