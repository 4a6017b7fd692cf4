"""LoRAs that a layout has no place for, and files that are not LoRAs or broken ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modules.adapters.lora import LoRA
from modules.weights.lora_files import read_lora, write_lora
from tests.unit.modules.lora_file_cases import ONETRAINER, factors, state_of

pytestmark = pytest.mark.usefixtures("seed")


@pytest.mark.parametrize(
    ("layout", "dora", "message"),
    [
        ("official", "output", "no place for a text encoder's layers or for DoRA"),
        ("peft", "input", "magnitudes by output only"),
        ("kohyah", False, "did you mean 'kohya'"),
    ],
)
def test_what_a_layout_cannot_hold_is_said(
    layout: str, dora: Any, message: str, make: Any, tmp_path: Path
) -> None:
    state = LoRA.create(make("stage_c"), {"*.channelwise.*": 2}, dora=dora).to_state({})
    with pytest.raises(ValueError, match=message):
        write_lora(tmp_path / "lora.safetensors", state, layout)
    assert not (tmp_path / "lora.safetensors").exists()


@pytest.mark.parametrize("layout", ["peft", "onetrainer_original", "onetrainer_comfy"])
def test_text_encoder_parts_are_refused_where_the_tool_refuses_them(layout: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{layout} has no place for layers of the text encoder"):
        write_lora(tmp_path / "lora.safetensors", state_of(text_encoder=True), layout)


@pytest.mark.parametrize("layout", ONETRAINER)
def test_onetrainer_has_no_stage_b(layout: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{layout} has no place for layers of stage_b"):
        write_lora(tmp_path / "lora.safetensors", state_of("stage_b"), layout)


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        ("lora_up.weight", torch.zeros(()), r"expected up \[out, rank\] and down \[rank, in\], found \[\]"),
        ("lora_down.weight", torch.zeros(0, 8), r"found \[8, 2\] and \[0, 8\]"),
        ("lora_down.weight", torch.zeros(3, 8), r"found \[8, 2\] and \[3, 8\]"),
        ("alpha", torch.zeros(2), "expected one alpha, found 2"),
    ],
)
def test_factors_that_do_not_fit_together_are_said(
    key: str, tensor: torch.Tensor, message: str, tmp_path: Path
) -> None:
    stem = "diffusion_model.clip_txt_mapper"
    good = {f"{stem}.lora_up.weight": torch.zeros(8, 2), f"{stem}.lora_down.weight": torch.zeros(2, 8)}
    save_file(good | {f"{stem}.{key}": tensor}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=f"x.safetensors: layer clip_txt_mapper: .*{message}"):
        read_lora(tmp_path / "x.safetensors")


def test_an_empty_file_is_no_lora(tmp_path: Path) -> None:
    save_file({}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="not a LoRA"):
        read_lora(tmp_path / "lora.safetensors")


def test_a_pickle_with_anything_else_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("/")}, tmp_path / "lora.pt")
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        read_lora(tmp_path / "lora.pt")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights of lora"):
        read_lora(tmp_path)


def test_magnitudes_for_comfyui_go_nowhere_else(tmp_path: Path) -> None:
    state = state_of(mlp=factors(dora_scale=torch.ones(16, 1)))
    state.facts["norms_of"] = "original"
    write_lora(tmp_path / "lora.safetensors", state, "comfyui")
    assert read_lora(tmp_path / "lora.safetensors").facts["norms_of"] == "original"
    with pytest.raises(ValueError, match="rescaled for ComfyUI"):
        write_lora(tmp_path / "lora.safetensors", state, "peft")
