"""Making folders of pictures, packing them, and reading back what was packed."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_tools.__main__ import main
from dataset_tools.records import Broken, Sample, read_samples


def save(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0, **options: Any) -> Path:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def pack(source: Path, out: Path, *options: object) -> int:
    """Run the command in this process; returns its exit status."""
    return main(["pack", str(source), str(out), "--workers", "0", *map(str, options)])


def samples(out: Path) -> dict[str, Sample]:
    """Return all samples of a data set by the name of their source."""
    found: list[Sample] = []
    broken: list[Broken] = []
    for path in sorted(out.glob("*.tar")):
        with open(path, "rb") as file:
            found += read_samples(file, path.name, broken.append)
    assert not broken
    assert len({s.key for s in found}) == len(found)
    return {s.facts["source"]: s for s in found}


def report(out: Path) -> dict[str, str]:
    """Why each file was left out."""
    with open(out / "report.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def contents(out: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
