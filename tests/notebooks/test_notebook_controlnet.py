"""controlnet.ipynb with small weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_controlnet_runs(
    run_notebook: Callable[..., Any], small_models: Path, adapters: Path, tmp_path: Path
) -> None:
    notebook = run_notebook(
        "controlnet",
        MODELS={"run": str(small_models)},
        CANNY=str(adapters / "canny"),
        INPAINTING=str(adapters / "inpainting"),
        OUT=str(tmp_path),
    )
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "identity: identity filter: weights: no .onnx files" in text
    told = "".join(output.get("metadata", {}).get("image/jpeg", {}).get("alt", "") for output in outputs)
    for name in ("brightness", "canny", "edge", "inpainting", "pixelated", "super_resolution"):
        assert name in told
