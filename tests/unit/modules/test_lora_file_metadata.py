"""What LoRA files say of themselves beside their tensors."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from modules.weights.lora_files import read_lora, write_lora
from tests.unit.modules.lora_file_cases import (
    DOWN,
    FLAT_Q,
    MLP,
    UP,
    A,
    B,
    factors,
    state_of,
)

pytestmark = pytest.mark.usefixtures("seed")


def test_metadata_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    state = state_of()
    state.facts["settings"] = {"lr": 0.001}
    write_lora(tmp_path / "lora.safetensors", state, "onetrainer_legacy")
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == "stable-cascade-v1-prior/lora"
    assert metadata["ss_base_model_version"] == "stable_cascade"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "2.0")
    assert json.loads(metadata["kaskade"])["base"]["fingerprint"] == "ab"
    found = read_lora(tmp_path / "lora.safetensors")
    assert found.facts["settings"] == {"lr": 0.001} and found.facts["base"] == state.facts["base"]


def test_metadata_of_other_tools_is_kept(tmp_path: Path) -> None:
    each = factors()
    tensors = {f"lora_unet_{FLAT_Q}{DOWN}": each.down, f"lora_unet_{FLAT_Q}{UP}": each.up}
    save_file(tensors, tmp_path / "kohya.safetensors", {"ss_learning_rate": "1e-4", "ss_network_dim": "4"})
    write_lora(tmp_path / "ours.safetensors", read_lora(tmp_path / "kohya.safetensors"), "comfyui")
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata()["ss_learning_rate"] == "1e-4"


@pytest.mark.parametrize(("prefix", "rslora"), [("unet.", False), ("prior.", True), ("", True)])
def test_alpha_stands_in_diffusers_metadata(prefix: str, rslora: bool, tmp_path: Path) -> None:
    each = factors()
    tensors = {f"{prefix}{MLP}{A}": each.down, f"{prefix}{MLP}{B}": each.up}
    config = {"r": 4, "lora_alpha": 1, "alpha_pattern": {r"channelwise\.4": 6}, "use_rslora": rslora}
    text = json.dumps({f"{prefix}{key}": value for key, value in config.items()})
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": text})
    alpha = read_lora(tmp_path / "lora.safetensors").parts["unet"][MLP].alpha
    assert alpha == (6 * 2 if rslora else 6)  # alpha / sqrt(4) = 2 alpha / 4
