"""Runs as a training leaves them, written by what writes them in a training."""

import json
import math
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from train.reports.trackers.base import RunFacts
from train.reports.trackers.csv import CsvTracker

CENTRES = ("-8", "-4", "+0", "+4", "+8")
NOW = "2026-01-01T00:00:00+00:00"


def table_of(folder: Path) -> CsvTracker:
    """What writes metrics.csv, for a run that begins anew."""
    folder.mkdir(parents=True, exist_ok=True)
    tracker = CsvTracker()
    tracker.start(RunFacts(folder, "test", "12345678", 0, {}))
    return tracker


def write_metrics(folder: Path, num_reports: int, every: int = 10, rate: float = 0.002) -> None:
    """Losses that fall the slower the more noise there is; 4 samples a step, 8 a second."""
    tracker = table_of(folder)
    for report in range(1, num_reports + 1):
        step = report * every
        levels = {f"loss_log_snr_{c}": math.exp(-rate * step * i) for i, c in enumerate(CENTRES, start=1)}
        values = {"loss": 2 / step, **levels, "gradient_norm": 1.0, "learning_rate": 1e-3}
        speed = {"samples_per_second": 8.0, "data_wait_share": 0.25}
        tracker.scalars(step, {**values, **speed, "samples": 4 * step, "skipped_steps": 0})


def write_two_players(folder: Path, num_reports: int) -> None:
    """Metrics of a generator and a discriminator."""
    tracker = table_of(folder)
    for step in range(1, num_reports + 1):
        values = {
            f"{p}/{name}": 1 / step
            for p in ("generator", "discriminator")
            for name in ("loss", "gradient_norm")
        }
        tracker.scalars(
            step, {**values, "generator/psnr": 10.0 + step, "samples_per_second": 8.0, "samples": step}
        )


def write_record(folder: Path, *starts: dict[str, Any]) -> None:
    """run.json with these starts; each begins at step 0 on one CPU unless it says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    common = {"started": NOW, "from_step": 0, "processes": 1, "device": "cpu", "commit": "abcdef0123456789"}
    record = {"id": "12345678", "starts": [common | start for start in starts]}
    (folder / "run.json").write_text(json.dumps(record))


def write_settings(folder: Path, **run: Any) -> None:
    """config.yaml with these entries of `run`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"name": "test", "run": {"num_steps": 100, "log_every": 10, **run}, "optim": {"lr": 0.001}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))


def write_sheet(folder: Path, step: int, colour: str) -> None:
    """A sample sheet of one colour."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), colour).save(folder / "samples" / f"step_{step:08d}.png")


def write_run(folder: Path, num_reports: int = 10, **run: Any) -> Path:
    """A run that is under way."""
    write_metrics(folder, num_reports)
    write_record(folder, {})
    write_settings(folder, **run)
    return folder
