"""What is known of a run, as its model card tells it: its record, its sources, numbers and tables."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from modules.schema import ConfigError
from train.reports.card_names import called, escaped
from train.reports.card_use import ABOUT, About


class Run:
    """What is known of a run from its folder. Raises ConfigError where there is no record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not all((folder / name).is_file() for name in ("run.json", "config.yaml")):
            raise ConfigError(f"{folder}: no run's folder (expected run.json and config.yaml in it)")
        self.starts = read_starts(folder / "run.json")
        found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("recipe"), dict):
            raise ConfigError(f"{folder / 'config.yaml'}: not the settings of a run")
        self.config: dict[str, Any] = found
        self.recipe = str(found["recipe"].get("name"))
        self.model: dict[str, Any] = found.get("model") or {}
        self.about = ABOUT.get(
            self.recipe, About(f"trained by the recipe {self.recipe}", "is as its recipe says")
        )
        # The newest start says how far it is: an interrupted one goes on in the next.
        self.last = self.starts[-1]

    @property
    def base(self) -> str:
        """The recipe that an adapter is of; its own name for others."""
        inner = self.config["recipe"].get("base")
        return str(inner.get("name", "stage_c")) if isinstance(inner, Mapping) else self.recipe

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do: all steps are taken, or all epochs are read."""
        done, all_steps = self.last.get("step"), self.config["run"]["num_steps"]
        is_read = self.config["data"].get("epochs") is not None and self.last.get("interrupted") is False
        return done is not None and (done == all_steps or is_read)

    def rows(self) -> list[dict[str, float]]:
        """The reports of metrics.csv, without what is empty."""
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)
            ]


def read_starts(path: Path) -> list[dict[str, Any]]:
    """The starts that run.json has, one at least. Raises ConfigError if damaged."""
    try:
        starts = [dict(start) for start in json.loads(path.read_text(encoding="utf-8"))["starts"]]
        starts[-1]["started"]
        return starts
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{path}: not the record of a run ({type(error).__name__}: {error})") from error


def sources(run: Run) -> list[tuple[str, str]]:
    """Name and weight of what was read."""
    given = run.config["data"]
    entries = given.get("sources") or [{"shards": given.get("shards"), "weight": 1}]
    found = []
    for entry in entries:
        shards = entry["shards"] if isinstance(entry["shards"], list) else [entry["shards"]]
        name = entry.get("name") or ", ".join(called(shard) for shard in shards[:3])
        found.append((called(name), f"{entry.get('weight', 1):g}"))
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    """Four digits; whole numbers whole."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{int(value):,}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


def plain(value: Any) -> str:
    """A setting; what may be a place goes by its name."""
    if isinstance(value, list):
        return ", ".join(plain(each) for each in value)
    is_place = isinstance(value, str) and ("/" in value or "\\" in value) and not value[0].isdigit()
    return escaped(called(value) if is_place else value)
