"""The released networks on the meta device: names, shapes, counts, and the recognition of their files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import modules
from modules.weights.official import recognise
from tests.oracle.network_cases import FOLDER, NETWORKS

pytestmark = pytest.mark.oracle

GOLDEN = Path(__file__).parent.parent / "golden"


def manifests(folder: Path) -> list[dict[str, Any]]:
    """The key lists in and below a folder."""
    contents = (json.loads(path.read_text()) for path in sorted(folder.rglob("*.json")))
    return [content for content in contents if "state_dict" in content]


def is_summary(content: Any) -> bool:
    """Whether a JSON file holds the counts of several networks, by their names."""
    entries = content.values() if isinstance(content, dict) else []
    return bool(entries) and all(isinstance(e, dict) and "total_parameters" in e for e in entries)


def summaries(folder: Path) -> list[dict[str, Any]]:
    """The summaries in and below a folder."""
    contents = (json.loads(path.read_text()) for path in sorted(folder.rglob("*.json")))
    return [content for content in contents if is_summary(content)]


MANIFESTS = manifests(FOLDER) or manifests(GOLDEN)
OURS = [pytest.param(each, id=each["model"]) for each in MANIFESTS if each["source_class"] in NETWORKS]
OTHERS = [pytest.param(each, id=each["model"]) for each in MANIFESTS if each["source_class"] not in NETWORKS]


def shapes_of(manifest: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in manifest["state_dict"].items()}


def build(name: str, config: dict[str, Any]) -> modules.Network:
    with torch.device("meta"):
        return modules.build(name, config)


@pytest.mark.parametrize("manifest", OURS)
def test_names_shapes_and_counts(manifest: dict[str, Any]) -> None:
    network = build(NETWORKS[manifest["source_class"]], manifest["config_kwargs"])
    state = network.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes_of(manifest)
    assert len(state) == manifest["num_tensors"]
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["total_parameters"]
    assert {name for name, _ in network.named_buffers()} == set(manifest["buffer_names"])
    assert sum(buffer.numel() for buffer in network.buffers()) == manifest["total_buffer_elements"]
    integers = {name: str(t.dtype) for name, t in state.items() if t.dtype != torch.float32}
    recorded = manifest["dtypes_other_than_float32"]
    assert integers == {name: f"torch.{kind}" for name, kind in recorded.items()}


def test_summaries_count_what_the_key_lists_hold() -> None:
    by_name = {manifest["model"]: manifest for manifest in MANIFESTS}
    for summary in summaries(FOLDER) or summaries(GOLDEN):
        for name, counts in summary.items():
            assert {key: by_name[name][key] for key in counts} == counts


@pytest.mark.parametrize("manifest", OURS)
def test_official_file_is_recognised_by_its_tensors(manifest: dict[str, Any]) -> None:
    name, config = recognise(shapes_of(manifest))
    assert name == NETWORKS[manifest["source_class"]]
    found, released = build(name, config), build(name, manifest["config_kwargs"])
    assert {key: tuple(t.shape) for key, t in found.state_dict().items()} == shapes_of(manifest)
    hidden_from_shapes = {"switch_level", "self_attn", "scale_factor", "stochastic_depth", "backbone"}
    for key in hidden_from_shapes & found.config.keys():
        assert found.config[key] == released.config[key]


@pytest.mark.parametrize("manifest", OTHERS)
def test_files_of_other_networks_are_not_taken_for_ours(manifest: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tensors of none of the networks"):
        recognise(shapes_of(manifest))


def test_heads_of_the_released_networks() -> None:
    """Head counts do not show in shapes, yet decide the output."""
    by_model = {manifest["model"]: shapes_of(manifest) for manifest in manifests(GOLDEN)}
    assert recognise(by_model["stage_c_large"])[1]["nhead"] == [32, 32]
    assert recognise(by_model["stage_c_lite"])[1]["nhead"] == [24, 24]
    assert recognise(by_model["stage_b_large"])[1]["nhead"][2:] == [20, 20]
    assert recognise(by_model["stage_b_lite"])[1]["nhead"][2:] == [18, 18]
