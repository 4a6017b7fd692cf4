"""What differs between two runs' folders, beside what has to: times, commands, the runs' own names."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

COMPARED = ("checkpoints", "samples", "weights", "text_encoder")
OF_TIME = ("samples_per_second", "data_wait_share", "checkpoint_pause_s", "checkpoint_save_s")
# A run's own name; and where readers begin to walk towards their position, which is nearer after a start.
OWN = ("run_id", "snapshot")
MANIFEST = "manifest.json"


def differences(one: Path, other: Path) -> list[str]:
    """A line per file that differs: weights, averages, optimizers, positions, counters, sheets, reports.

    Files that only one of the runs left behind differ too, but for checkpoints before the newest.
    """
    files, others = _files(one), _files(other)
    found = [f"{name}: only in {one if name in files else other}" for name in sorted(files ^ others)]
    for name in sorted(files & others):
        found += _told(name, _compare(one / name, other / name))
    return found + _told("metrics.csv", unequal(_rows(one), _rows(other)))


def _told(name: str, unequal: list[str]) -> list[str]:
    more = f" (and {len(unequal) - 1} more)" if len(unequal) > 1 else ""
    return [f"{name}: {unequal[0]}{more}"] if unequal else []


def _files(run: Path) -> set[str]:
    newest = (run / "checkpoints" / "latest").read_text()
    paths = [path for folder in COMPARED for path in (run / folder).rglob("*") if path.is_file()]
    names = {str(path.relative_to(run)) for path in paths}
    older = [name for name in names if re.match(r"checkpoints/step_\d+/", name) and newest not in name]
    return names - set(older)


def _compare(one: Path, other: Path) -> list[str]:
    if one.name == MANIFEST:  # says in numbers what the files say
        return []
    if one.suffix == ".safetensors":
        return unequal(_safetensors(one), _safetensors(other))
    if one.suffix == ".json":
        return unequal(json.loads(one.read_text()), json.loads(other.read_text()))
    return [] if one.read_bytes() == other.read_bytes() else ["other bytes"]


def _safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return {"header": file.metadata(), **{key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: row[key] for key in row if key not in OF_TIME} for row in csv.DictReader(file)]


def unequal(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two nested values differ, to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() ^ other.keys(), key=str)
        found = [f"{where}.{key}: only in one" for key in keys]
        for key in (key for key in one if key in other and key not in OWN):
            found += unequal(one[key], other[key], f"{where}.{key}")
        return found
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} entries"]
        pairs = enumerate(zip(one, other, strict=True))
        return [line for index, (a, b) in pairs for line in unequal(a, b, f"{where}[{index}]")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        if same and torch.equal(_bits(one), _bits(other)):
            return []
        apart = (one.double() - other.double()).abs().max().item() if one.shape == other.shape else "shape"
        return [f"{where}: tensors differ by up to {apart}"]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor
