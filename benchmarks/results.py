"""Results on disk: one JSON file for each machine and kind of run."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.frame import Target
from modules.whole_files import write_whole

FOLDER = Path(__file__).parent / "results"


@dataclass
class Results:
    """What one machine found. rows: by name, each with its own commit, date and command."""

    kind: str
    machine: dict[str, Any]
    small: bool
    rows: dict[str, dict[str, Any]]

    def path(self, folder: Path) -> Path:
        """Where they belong: the file is named after what computes."""
        computes = self.machine.get("gpu") or f"{self.machine['processor']} {self.machine['cores']} cores"
        name = re.sub(r"[^a-z0-9]+", "-", computes.lower()).strip("-")
        return folder / f"{'small-' if self.small else ''}{self.kind}-{name}.json"

    def write(self, folder: Path) -> Path:
        """Put these rows into their file, beside those that are in it and were not measured now."""
        path = self.path(folder)
        if path.exists():
            self.rows = {**read(path).rows, **self.rows}
        write_whole(path, json.dumps(vars(self), indent=1) + "\n")
        return path


def read(path: Path) -> Results:
    """The results in a file. ValueError when it holds something else."""
    try:
        return Results(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: holds no results of the benchmarks ({error})") from None


def read_all(folder: Path) -> list[Results]:
    """The results of a folder, CPUs first. FileNotFoundError when there are none."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no results; run `python -m benchmarks` first")
    return [read(path) for path in paths]


def met(row: Mapping[str, Any], figure: str) -> bool | None:
    """Whether a row's figure is what it is to be; None where no target was set."""
    target = row["targets"].get(figure)
    return None if target is None else Target(**target).met_by(row["found"]["figures"][figure])
