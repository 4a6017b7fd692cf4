"""text_to_image.ipynb with small weights: with an image encoder and without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]
PROMPTS = ["a red circle", "a blue square"]


def test_text_to_image_runs(run_notebook: Run, small_models: Path, adapters: Path, tmp_path: Path) -> None:
    models = {"run": str(small_models), "image_encoder": str(small_models / "image_encoder")}
    notebook = run_notebook(
        "text_to_image",
        MODELS=models,
        PROMPTS=PROMPTS,
        IP_ADAPTER=str(adapters / "ip_adapter"),
        OUT=str(tmp_path),
    )
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "recreated: the same pixels" in text
    assert "6 variations: " in text


def test_text_to_image_runs_without_what_the_demo_may_lack(
    run_notebook: Run, small_models: Path, tmp_path: Path
) -> None:
    notebook = run_notebook(
        "text_to_image",
        MODELS={"run": str(small_models)},
        PROMPTS=PROMPTS,
        IP_ADAPTER=None,
        OUT=str(tmp_path),
    )
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "image_encoder: " in text and "names none; set weights.image_encoder=" in text
