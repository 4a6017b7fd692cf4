"""Layouts of the tools that cannot be installed here, checked by their key tables; and every round trip."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modules.weights.conversion import convert, gather
from modules.weights.layouts import comfyui, diffusers
from modules.weights.lazy import LazyTensor
from modules.weights.parts import Part, recognised
from modules.weights.pipelines import other_diffusion, scheduler_config
from modules.weights.writers import WRITERS, Settings
from tests.unit.modules.layout_cases import SMALL, assert_same, tensors

MANIFESTS = Path(__file__).parents[2] / "golden" / "manifests"
RELEASED = (
    *(
        "stage_a",
        "stage_b_large",
        "stage_b_lite",
        "stage_c_large",
        "stage_c_lite",
        "effnet_encoder",
        "previewer",
    ),
    *(f"controlnet_{kind}" for kind in ("canny", "inpainting", "super_resolution", "identity")),
)


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("name", [*SMALL, "text_encoder", "image_encoder"])
def test_round_trip_of_one_network(name: str, layout: str, parts: dict[str, Part], tmp_path: Path) -> None:
    if layout == "diffusers" and name not in (
        "stage_a",
        "stage_b",
        "stage_c",
        "text_encoder",
        "image_encoder",
    ):
        with pytest.raises(ValueError, match=f"{name}: diffusers has no such network"):
            convert({name: parts[name]}, tmp_path / "out", Settings(layout))
        return
    is_folder = layout == "diffusers" or (layout == "official" and "encoder" in name)
    out = tmp_path / ("out" if is_folder else "out.safetensors")
    assert convert({name: parts[name]}, out, Settings(layout)) == [name]
    assert_same(parts[name], gather(out)[name])
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_folder_of_a_fine_tuning_tool(parts: dict[str, Part], tmp_path: Path) -> None:
    """OneTrainer's: a raw stage_c.safetensors and a text_encoder.safetensors, which has no tokenizer."""
    for name in ("stage_c", "text_encoder"):
        save_file(tensors(parts[name]), tmp_path / f"{name}.safetensors")
    found = gather(tmp_path)
    for name, part in found.items():
        assert_same(parts[name], part, also_config=False)
    assert found.keys() == {"stage_c", "text_encoder"}
    with pytest.raises(ValueError, match="text_encoder: there is no tokenizer with it"):
        convert(found, tmp_path / "prior", Settings("diffusers"))


def manifest(name: str) -> dict[str, LazyTensor]:
    """A released network's tensors, of which only names, shapes and formats are known."""
    content = json.loads((MANIFESTS / f"{name}.json").read_text())
    formats = content["dtypes_other_than_float32"]

    def tensor(key: str, shape: list[int]) -> LazyTensor:
        dtype = getattr(torch, formats.get(key, "float32"))
        return LazyTensor(tuple(shape), dtype, lambda: torch.empty(shape, dtype=dtype, device="meta"))

    return {key: tensor(key, shape) for key, shape in content["state_dict"].items()}


@pytest.mark.parametrize("model", RELEASED)
def test_released_networks_go_through_every_layout(model: str) -> None:
    """Names and shapes at released size; ComfyUI's and diffusers' tables tell full and lite apart by them."""
    state = manifest(model)
    name, config, _ = recognised(state)
    there = [comfyui.to_theirs(name, state)]
    if name in diffusers.CLASSES:
        there.append(diffusers.to_theirs(name, state))
        told = diffusers.config_to_ours(name, diffusers.config_to_theirs(name, config))
        assert told.pop("switch_level", [False]) == [False]  # one for each change of level
        assert config.items() >= told.items()
        assert config.keys() - told.keys() <= {"switch_level"}
    for renamed in there:
        back = recognised(renamed)
        assert (back[0], back[1]) == (name, config)
        assert {key: (tuple(t.read().shape), t.dtype) for key, t in back[2].items()} == {
            key: (tensor.shape, tensor.dtype) for key, tensor in state.items()
        }
    tell_apart = {
        "stage_c_large": ("clip_txt_mapper.weight", 0, 2048),
        "stage_c_lite": ("clip_txt_mapper.weight", 0, 1536),
        "stage_b_large": ("down_blocks.1.0.channelwise.0.weight", -1, 640),
        "stage_b_lite": ("down_blocks.1.0.channelwise.0.weight", -1, 576),
    }
    if model in tell_apart:
        key, axis, size = tell_apart[model]
        assert there[0][key].shape[axis] == size and "clf.1.weight" in there[0]


@pytest.mark.parametrize(
    ("layout", "wrong", "kind"),
    [
        ("official", "folder", "a file"),
        ("comfyui", "folder", "a file"),
        ("diffusers", "x.safetensors", "a folder"),
    ],
)
def test_output_of_the_wrong_kind(
    layout: str, wrong: str, kind: str, parts: dict[str, Part], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"output: expected {kind}"):
        convert({"stage_a": parts["stage_a"]}, tmp_path / wrong, Settings(layout))
    assert not list(tmp_path.iterdir())


def test_number_formats_change_only_when_asked(parts: dict[str, Part], tmp_path: Path) -> None:
    convert(
        {"previewer": parts["previewer"]}, tmp_path / "p.safetensors", Settings("official", torch.float16)
    )
    found = gather(tmp_path / "p.safetensors")["previewer"]
    assert {tensor.dtype for tensor in found.state.values()} == {torch.float16, torch.int64}
    for name, tensor in tensors(parts["previewer"]).items():
        expected = tensor.half() if tensor.is_floating_point() else tensor
        assert torch.equal(found.state[name].read(), expected)


@pytest.mark.parametrize("diffusion", [None, {"target": None}, {"schedule": "cosine"}, {"target": {}}])
def test_a_header_that_says_nothing_of_the_diffusion_counts_as_released(diffusion: Any) -> None:
    part = Part("stage_c", {}, {}, {"gdf": diffusion})
    assert other_diffusion(part) is None and scheduler_config(part)["s"] == 0.008
