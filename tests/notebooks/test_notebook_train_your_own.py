"""train_your_own.ipynb, from top to bottom, with networks of nearly nothing and trainings of a few steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.notebooks.trainable import taken_from, write_trainable


def test_runs(run_notebook: Callable[..., Any], tmp_path: Path) -> None:
    models = write_trainable(tmp_path / "models")
    notebook = run_notebook(
        "train_your_own",
        MODELS={"run": str(models)},
        EXPERIMENT="tiny/stage_c",
        OLD=None,
        STEPS=4,
        SETTINGS=taken_from(models, "semantic_compressor", "stage_c", "previewer"),
        PROMPTS=["a circle"],
        OLD_PROMPTS=["a cross"],
        OUT=str(tmp_path),
    )
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "cut_picture" in said and "not_picture" in said  # what pack left out
    assert "step 4/4" in said
    run = tmp_path / "train_your_own" / "run"
    assert [path.name for path in sorted((run / "checkpoints").glob("step_*"))][-1] == "step_00000012"
    assert not (tmp_path / "train_your_own" / "mixed").exists()
