"""reconstruction.ipynb with small weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_tools.__main__ import main as dataset_tools


def test_reconstruction_runs(run_notebook: Callable[..., Any], small_models: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(f"noise {number}")
    assert dataset_tools(["pack", str(photos), str(tmp_path / "shards")]) in (0, None)
    notebook = run_notebook(
        "reconstruction",
        MODELS={"run": str(small_models)},
        PICTURES=str(tmp_path / "shards"),
        NUM_PICTURES=6,
        NUM_MEASURED=8,
        OUT=str(tmp_path),
    )
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "8 pictures, both ways: " in text
