"""inside_the_cascade.ipynb, from top to bottom, with networks of nearly nothing and few steps."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset_tools.shapes_pairs import write_pairs
from scripts.run_notebooks import ROOT
from tests.notebooks.trainable import write_trainable


def test_runs(run_notebook: Callable[..., Any], tmp_path: Path) -> None:
    write_pairs(tmp_path / "pictures")
    command = [sys.executable, "-m", "dataset_tools", "pack", tmp_path / "pictures", tmp_path / "shards"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    notebook = run_notebook(
        "inside_the_cascade",
        MODELS={"run": str(write_trainable(tmp_path / "models"))},
        HELD_OUT=str(tmp_path / "shards"),
        PROMPTS=["a red circle", "a cross", "a square"],
        NUM_PICTURES=3,
        NUM_LEVELS=3,
        STEPS=[1, 2],
        REFERENCE_STEPS=3,
    )
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "3 pictures at 3 noise levels" in said
