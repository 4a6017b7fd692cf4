"""LoRA files of every layout: every trip there and back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.adapters.lora import LoRA
from modules.adapters.lora_state import Factors
from modules.weights import save_network
from modules.weights.lora_files import LAYOUTS, read_lora, write_lora
from tests.unit.modules.lora_file_cases import (
    DOWN,
    MLP,
    ONETRAINER,
    UP,
    A,
    B,
    assert_same,
    factors,
    noise,
    state_of,
)

pytestmark = pytest.mark.usefixtures("seed")

TE_LAYOUTS = [layout for layout, style in LAYOUTS.items() if style.text_encoder is not None]
# Layouts with the forms of DoRA that they have a place for.
HELD = [
    *((layout, False) for layout in (*LAYOUTS, "official")),
    *((layout, "output") for layout in LAYOUTS),
    *((layout, "input") for layout in LAYOUTS if layout not in ("peft", "diffusers")),
]


@pytest.mark.parametrize(
    ("name", "layout", "dora"),
    [
        *(("stage_c", layout, dora) for layout, dora in HELD),
        *(("stage_b", layout, dora) for layout, dora in HELD if layout not in ONETRAINER),
    ],
)
def test_round_trips_are_bit_identical(name: str, layout: str, dora: Any, make: Any, tmp_path: Path) -> None:
    network = make(name, blocks=[[1, 1], [1, 1]] if name == "stage_c" else [[1, 1, 1], [1, 1, 1]])
    # Stage B's downscalers have kernels, of which an official file changes all places alike.
    layers = {"*": 4, "*.depthwise": 0, "*.to_v": 2, "down_downscalers.*": 0 if layout == "official" else 4}
    lora = LoRA.create(network, layers, alpha=8, dora=dora)
    for parameter in lora.parameters():
        parameter.data += noise(*parameter.shape)
    state = lora.to_state({"for": name})
    if layout != "official":
        state.tokens["[ring]"] = noise(1, 12)
    write_lora(tmp_path / "lora.safetensors", state, layout)
    found = read_lora(tmp_path / "lora.safetensors")
    assert (found.facts["layout"], found.facts["for"]) == (layout, name)
    assert_same(found, state)
    for other in ("comfyui", layout):  # to another layout and back
        write_lora(tmp_path / "other.safetensors", found, other)
        found = read_lora(tmp_path / "other.safetensors")
    assert_same(found, state)
    LoRA.from_state(found, network)


@pytest.mark.parametrize("layout", ONETRAINER)
def test_depthwise_changes_in_onetrainers_form_are_the_same(layout: str, make: Any, tmp_path: Path) -> None:
    network = make("stage_c")
    lora = LoRA.create(network, {"*.depthwise": 3}, alpha=6)
    for parameter in lora.parameters():
        parameter.data += noise(*parameter.shape)
    write_lora(tmp_path / "lora.safetensors", lora.to_state({}), layout)
    tensors = load_file(tmp_path / "lora.safetensors")
    assert {tuple(t.shape[1:]) for key, t in tensors.items() if key.endswith((DOWN, A))} >= {(16, 3, 3)}
    assert {tuple(t.shape) for key, t in tensors.items() if key.endswith((UP, B))} == {(1, 3, 1, 1)}
    again = LoRA.from_state(read_lora(tmp_path / "lora.safetensors"), network)
    for name, layer in lora.layers.items():
        weight = network.get_submodule(name).weight
        torch.testing.assert_close(again.layers[name].change(weight), layer.change(weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_number_formats_stay(dtype: torch.dtype, tmp_path: Path) -> None:
    half = Factors(*(t if t is None else t.to(dtype) for t in factors()))
    write_lora(tmp_path / "lora.safetensors", state_of(mlp=half), "kohya")
    found = read_lora(tmp_path / "lora.safetensors").parts["unet"][MLP]
    assert found.down.dtype == found.up.dtype == found.alpha.dtype == dtype


def test_missing_alpha_stays_missing(tmp_path: Path) -> None:
    state = state_of(mlp=factors(alpha=None))
    write_lora(tmp_path / "lora.safetensors", state, "kohya")
    assert_same(read_lora(tmp_path / "lora.safetensors"), state)


@pytest.mark.parametrize("layout", TE_LAYOUTS)
def test_text_encoder_parts_and_tokens_come_along(layout: str, tmp_path: Path) -> None:
    state = state_of(text_encoder=True)
    state.tokens["[a.b]"], state.output_tokens["[a.b]"] = noise(2, 1280), noise(2, 1280)
    write_lora(tmp_path / "lora.safetensors", state, layout)
    assert {"bundle_emb.[a.b].clip_g", "bundle_emb.[a.b].clip_g_out"} < set(
        load_file(tmp_path / "lora.safetensors")
    )
    found = read_lora(tmp_path / "lora.safetensors")
    assert_same(found, state)
    assert torch.equal(found.output_tokens["[a.b]"], state.output_tokens["[a.b]"])


def test_numbers_of_8_bits_are_read_as_bf16(tmp_path: Path) -> None:
    stem, values = "diffusion_model.clip_txt_mapper", torch.randn(2, 8).to(torch.float8_e4m3fn)
    save_file(
        {f"{stem}.lora_down.weight": values, f"{stem}.lora_up.weight": values.t().contiguous()},
        tmp_path / "x.safetensors",
    )
    down = read_lora(tmp_path / "x.safetensors").parts["unet"]["clip_txt_mapper"].down
    assert down.dtype == torch.bfloat16 and torch.equal(down.float(), values.float())


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("ending", ["pt", "ckpt"])
def test_pickled_files_are_read_without_running_them(wrapped: bool, ending: str, tmp_path: Path) -> None:
    state = state_of()
    write_lora(tmp_path / "lora.safetensors", state, "kohya")
    tensors = load_file(tmp_path / "lora.safetensors")
    torch.save({"state_dict": tensors} if wrapped else tensors, tmp_path / f"lora.{ending}")
    assert_same(read_lora(tmp_path / f"lora.{ending}"), state)


def test_a_runs_own_file_is_the_comfyui_layout(make: Any, tmp_path: Path) -> None:
    lora = LoRA.create(make("stage_b"), {"*": 2})
    (tmp_path / "weights").mkdir()
    facts = {"base": {"network": "stage_b"}}
    save_network(tmp_path / "weights" / "lora.safetensors", lora, "lora", facts)
    state = read_lora(tmp_path)
    assert (state.facts["layout"], state.facts["for"]) == ("comfyui", "stage_b")
    assert_same(state, lora.to_state(facts))
