"""Number formats and compiled blocks, in whole pictures."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import inference.reading
from inference import Cascade, StageSettings, write_picture
from inference.config import Config
from inference.recreate import recreate

FORMATS = {
    "stage_c": {torch.float16},
    "stage_b": {torch.float16},
    "stage_a": {torch.float32},
    "text_encoder": {torch.float16},
}
STEPS = StageSettings(steps=2)
FAST: dict[str, Any] = {"width_px": 48, "height_px": 32, "stage_c": STEPS, "stage_b": STEPS}


def pixels(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("offload", ["none", "block"])
def test_half_draws_nearly_the_same_with_small_networks_in_float32(tiny_runs: Path, offload: str) -> None:
    exact = Cascade.load(str(tiny_runs), device="cpu").generate("a red circle", 2, **FAST)[0]
    half = Cascade.load(str(tiny_runs), device="cpu", dtype="fp16", offload=offload)  # type: ignore[arg-type]
    drawn = half.generate("a red circle", 2, **FAST)[0]
    made = {name: half.networks.peek(name) for name in ("stage_c", "stage_b", "stage_a")}
    made["text_encoder"] = half.networks.peek_encoder("text_encoder", "stage_c")
    assert {name: {t.dtype for t in net.parameters()} for name, net in made.items()} == FORMATS
    assert np.abs(pixels(exact.image) - pixels(drawn.image)).mean() < 2
    assert drawn.facts["dtype"] == "fp16"


def test_compiled_networks_draw_nearly_the_same(
    tiny_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        counted.append(1)
        return graph.forward

    quick = partial(inference.reading.compile_blocks, backend=backend)
    monkeypatch.setattr(inference.reading, "compile_blocks", quick)
    torch._dynamo.reset()
    exact = Cascade.load(str(tiny_runs), device="cpu").generate("a red circle", 2, **FAST)[0]
    cascade = Cascade.load(str(tiny_runs), device="cpu", compile=True)
    assert cascade.described().startswith("cpu, float32; compiled")
    drawn = cascade.generate("a red circle", 2, **FAST)[0]
    assert counted
    assert np.abs(pixels(exact.image) - pixels(drawn.image)).mean() < 1
    before = len(counted)
    cascade.generate("a red circle", 2, **{**FAST, "width_px": 64, "height_px": 64})
    assert len(counted) == before
    path = write_picture(drawn, tmp_path)
    again, verdict = recreate(Config(recreate=str(path)))
    assert verdict == "the same pixels" and again.facts["compile"]
    plain, _ = recreate(Config(recreate=str(path), compile=False))
    assert not plain.facts["compile"] and np.array_equal(pixels(plain.image), pixels(exact.image))
