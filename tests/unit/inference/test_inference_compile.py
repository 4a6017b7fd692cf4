"""Compiled networks with all that can be chosen beside them: pictures as without, and code made once.

The compiler's first half makes the graphs, and shows how often; the whole compiler is in the slow tests.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import inference.reading
from inference import Cascade, StageSettings

ONE_STEP = StageSettings(steps=1)
FAST: dict[str, Any] = {"stage_c": ONE_STEP, "stage_b": ONE_STEP}
SIZES = ((48, 32), (32, 48), (320, 64))  # the last one is decoded in tiles
# How far rounding may take a step's latents, relative to the largest. In bf16 compiled code rounds less.
ROUNDING = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.2}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A compiler that knows nothing yet."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are compiled by the first half of the compiler alone."""
    for name in ("compile_blocks", "compile_whole"):
        made = partial(getattr(inference.reading, name), backend="eager")
        monkeypatch.setattr(inference.reading, name, made)


def graphs() -> int:
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


@pytest.fixture
def load(tiny_runs: Path) -> Callable[..., Cascade]:
    encoder = str(tiny_runs / "image_encoder")
    return partial(Cascade.load, str(tiny_runs), device="cpu", image_encoder=encoder, tile_px=256)


def latents(cascade: Cascade, size: tuple[int, int], **settings: Any) -> dict[str, Tensor]:
    """Of both stages, of a picture so wide and high."""
    seen: dict[str, Tensor] = {}
    keep = {"on_step": lambda step: seen.update({step.stage: step.latents})}
    cascade.generate("a red circle", 1, width_px=size[0], height_px=size[1], **keep, **FAST, **settings)
    return seen


def with_adapters(adapters: Path, photo: str, weight: float = 1.0) -> dict[str, Any]:
    """A LoRA for each stage, a control and an image prompt, all of that weight."""
    return {
        "loras": [{"weights": str(adapters / name), "weight": weight} for name in ("lora_c", "lora_b")],
        "controls": [{"weights": str(adapters / "canny"), "image": photo, "scale": weight}],
        "image_prompt": {"weights": str(adapters / "ip_adapter"), "images": [photo], "scale": weight},
    }


def assert_as_without(
    plain: Cascade, compiled: Cascade, size: tuple[int, int], settings: dict[str, Any]
) -> None:
    expected, found = latents(plain, size, **settings), latents(compiled, size, **settings)
    most = ROUNDING[plain.networks.dtype_name]
    for stage, tensor in expected.items():
        assert (found[stage] - tensor).abs().max() < most * tensor.abs().max(), (stage, size)


@pytest.mark.parametrize(
    "chosen",
    [
        {"dtype": "fp16", "offload": "stage", "quantize": "int8"},
        pytest.param({"dtype": "fp32"}, marks=pytest.mark.slow),
        pytest.param({"dtype": "bf16", "offload": "stage", "quantize": "nf4"}, marks=pytest.mark.slow),
    ],
    ids=lambda chosen: "-".join(chosen.values()),
)
def test_adapters_and_sizes_come_and_go(
    chosen: dict[str, str], load: Callable[..., Cascade], adapters: Path, photo: str, quick: None
) -> None:
    plain, compiled = load(**chosen), load(compile=True, **chosen)
    others = partial(with_adapters, adapters, photo)
    # The second weight is compiled for: from then on it counts as a number that changes. So are blocks that
    # had adapters and have none.
    for settings in (others(0.5), others(1.0), {}):
        assert_as_without(plain, compiled, SIZES[0], settings)
    made = graphs()
    for size, settings in ((SIZES[0], others(0.7)), (SIZES[1], others(0.8)), (SIZES[1], {}), (SIZES[2], {})):
        assert_as_without(plain, compiled, size, settings)
        assert graphs() == made


def test_a_whole_network_is_one_graph(load: Callable[..., Cascade], quick: None) -> None:
    plain, compiled = load(), load(compile="graphs")
    assert compiled.described().startswith("cpu, float32; compiled whole, as graphs")
    for size in SIZES[:2]:
        assert_as_without(plain, compiled, size, {"task": "preview"})  # which Stage B has no part in
        assert graphs() == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"offload": "stage", "compile": "graphs"},
            "compile: graphs need weights that stay on the device; set offload=none",
        ),
        ({"compile": "graph"}, "compile: expected true, false or graphs, found 'graph'"),
    ],
)
def test_what_cannot_be_is_told(load: Callable[..., Cascade], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        load(**settings)


@pytest.mark.slow
def test_the_whole_compiler_draws_the_same(load: Callable[..., Cascade], adapters: Path, photo: str) -> None:
    chosen = {"dtype": "fp16", "offload": "stage", "quantize": "int8"}
    plain, compiled = load(**chosen), load(compile=True, **chosen)
    for settings in ({}, with_adapters(adapters, photo)):
        for size in SIZES:
            assert_as_without(plain, compiled, size, settings)
