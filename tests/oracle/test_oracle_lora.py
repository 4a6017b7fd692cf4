"""LoRA against the published one: official files on the recorded networks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import modules
from modules.adapters.lora import LoRA
from modules.adapters.lora_state import LoRAState
from modules.adapters.official_names import fused_name, name_layers
from modules.weights.lora_files import read_lora
from tests.oracle.network_cases import FOLDER, Case, files, is_lora

pytestmark = pytest.mark.oracle


def cases() -> list[Any]:
    return [pytest.param(Case(path), id=path.stem) for path in files(is_lora)]


def manifests() -> list[Any]:
    """Of released-size LoRA files: the names and shapes of their tensors."""
    paths = [path for path in sorted(FOLDER.rglob("*.json")) if '"weights.0.lora_down"' in path.read_text()]
    return [pytest.param(path, id=path.stem) for path in paths]


def targets(case: Case) -> list[str]:
    """The layers that the case's numbers mean."""
    parameters = json.loads(case.facts["lora_targets"])
    return [name.removesuffix("_weight").removesuffix(".weight") for name in parameters]


def official_lora(case: Case, folder: Path) -> LoRAState:
    """The case's LoRA, by way of a file as the published training leaves it."""
    save_file(case.part("lora"), folder / "lora.safetensors")
    state = read_lora(folder / "lora.safetensors")
    assert state.facts["layout"] == "official"
    return state


def weight(network: Any, target: str) -> Tensor:
    return network.get_parameter(f"{target}_weight" if target.endswith("in_proj") else f"{target}.weight")


def test_there_are_recorded_cases() -> None:
    assert cases() and manifests()


@pytest.mark.parametrize("case", cases())
@torch.no_grad()
def test_lora(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = case.network()
    state = name_layers(official_lora(case, tmp_path), network, json.loads(case.facts["module_filters"]))
    assert {fused_name(name) for name in state.parts["unet"]} == set(targets(case))
    lora = LoRA.from_state(state, network)
    for run in json.loads(case.facts["runs"]):
        name = run["run"]
        recorded, inputs = case.part(f"out.{name}"), case.inputs(name)
        monkeypatch.setattr(network, "embed_timesteps", lambda r, companions: recorded["r_embed"])  # noqa: B023
        without = network(**inputs)
        torch.testing.assert_close(without, recorded["sample_without_lora"], atol=4e-5, rtol=1e-5)
        lora.attach(network)
        case.check(name, "sample", network(**inputs))
        lora.detach()
        assert torch.equal(network(**inputs), without)


@pytest.mark.parametrize("case", cases())
def test_merged_weights(case: Case, tmp_path: Path) -> None:
    network = case.network()
    state = name_layers(official_lora(case, tmp_path), network, json.loads(case.facts["module_filters"]))
    LoRA.from_state(state, network).merge(network)
    merged = case.part("merged")
    assert merged
    for name, expected in merged.items():
        torch.testing.assert_close(network.get_parameter(name).detach(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("case", cases())
def test_names_follow_from_shapes(case: Case, tmp_path: Path) -> None:
    """Without the filters, which the file does not hold: found, or said to be ambiguous, never wrong."""
    try:
        state = name_layers(official_lora(case, tmp_path), case.network())
    except ValueError as error:
        assert "module_filters" in str(error)
    else:
        assert {fused_name(name) for name in state.parts["unet"]} == set(targets(case))


@pytest.mark.parametrize("path", manifests())
def test_released_sizes_are_understood(path: Path, tmp_path: Path) -> None:
    shapes = json.loads(path.read_text())["state_dict"]
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    tensors["embeddings.indices"] = torch.tensor([49408])
    save_file(tensors, tmp_path / "lora.safetensors")
    with torch.device("meta"):
        network = modules.build("stage_c", {})
    state = read_lora(tmp_path / "lora.safetensors")
    num_pairs = sum(name.endswith("lora_down") for name in shapes)
    # Of each two pairs, the packed one is three layers.
    assert len(name_layers(state, network).parts["unet"]) == 2 * num_pairs
    assert list(state.rows) == [49408]
