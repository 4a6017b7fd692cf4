"""lora.ipynb, from top to bottom, with networks of nearly nothing and trainings of six steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.notebooks.trainable import taken_from, write_trainable


def test_runs(run_notebook: Callable[..., Any], tmp_path: Path) -> None:
    models = write_trainable(tmp_path / "models")
    base = taken_from(models, "semantic_compressor", "stage_c", "previewer")
    run_notebook(
        "lora",
        MODELS={"run": str(models)},
        EXPERIMENT="tiny/lora",
        CLASS="[a-z]",
        STEPS=2,
        SETTINGS=base,
        STYLE_STEPS=1,
        STYLE_SETTINGS=[*base, "~recipe.tokens"],
        SPOILT_SETTINGS=['recipe.layers={"*": 2}'],
        PROMPTS=["a [pillar]", "red [pillar]"],
        OTHERS=["a circle"],
        OUT=str(tmp_path),
    )
    made = {path.name for path in (tmp_path / "lora").iterdir()}
    assert {"subject", "style", "spoilt", "pillar_kohya.safetensors", "stage_c_merged.safetensors"} <= made
