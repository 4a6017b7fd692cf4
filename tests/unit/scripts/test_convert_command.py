"""The command that converts weights, on small networks."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modules.adapters.lora import LoRA
from modules.weights import load_network, read_tensors, save_network
from modules.weights.lora_files import read_lora, write_lora
from scripts import convert_checkpoint
from tests.unit.scripts.weight_cases import PATTERNS, assert_close, state


@pytest.mark.parametrize("layout", ["kohya", "peft", "diffusers", "onetrainer_legacy", "official"])
def test_loras_are_converted(layout: str, files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    there, back = tmp_path / "new" / "there.safetensors", tmp_path / "back.safetensors"
    assert convert_checkpoint.main([str(files["lora"]), str(there), "--to", layout]) == 0
    assert "a LoRA for stage_c" in capsys.readouterr().out
    assert convert_checkpoint.main([str(there), str(back), "--to", "comfyui"]) == 0
    merged = {}
    for file in (files["lora"], back):
        target = load_network(files["base"], "stage_c").requires_grad_(False)
        LoRA.from_state(read_lora(file), target).merge(target)
        merged[file] = target.state_dict()
    assert_close(merged[files["lora"]], merged[back])


def test_conversion_there_and_back(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    for layout, name in (
        ("diffusers", "folder"),
        ("comfyui", "unet.safetensors"),
        ("official", "o.safetensors"),
    ):
        assert convert_checkpoint.main([str(files["base"]), str(tmp_path / name), "--to", layout]) == 0
        assert_close(state(tmp_path / name), state(files["base"]), tolerance=0)
    printed = capsys.readouterr().out
    assert "found:   stage_c (" in printed and "float32" in printed


@pytest.mark.parametrize("layout", ["a run", "runs"])
def test_the_plain_weights_of_a_run_where_they_are_asked_for(
    layout: str, files: dict[str, Path], tmp_path: Path
) -> None:
    weights = tmp_path / "runs" / "stage_c" / "weights"
    weights.mkdir(parents=True)
    shutil.copyfile(files["base"], weights / "stage_c.safetensors")
    shutil.copyfile(files["other"], weights / "stage_c_ema.safetensors")
    source = str(weights.parent if layout == "a run" else weights.parent.parent)
    for name, options in (("base", ["--no-ema"]), ("other", [])):
        out = tmp_path / f"{name}_again.safetensors"
        assert convert_checkpoint.main([source, str(out), "--to", "official", *options]) == 0
        assert_close(state(out), state(files[name]), tolerance=0)


def test_a_folder_of_runs_with_a_lora_among_them_is_of_networks(
    files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    runs = tmp_path / "runs"
    for run, name, file in (("stage_c", "stage_c", "base"), ("lora", "lora", "lora")):
        (runs / run / "weights").mkdir(parents=True)
        shutil.copyfile(files[file], runs / run / "weights" / f"{name}.safetensors")
    assert convert_checkpoint.main([str(runs), str(tmp_path / "prior"), "--to", "diffusers"]) == 0
    assert_close(state(tmp_path / "prior"), state(files["base"]), tolerance=0)
    for source in (runs / "lora", runs / "lora" / "weights"):
        shutil.rmtree(runs / "stage_c", ignore_errors=True)
        out = tmp_path / f"{source.name}.kohya.safetensors"
        assert convert_checkpoint.main([str(source), str(out), "--to", "kohya"]) == 0
    assert convert_checkpoint.main([str(runs), str(tmp_path / "k.safetensors"), "--to", "kohya"]) == 0
    assert read_lora(tmp_path / "k.safetensors").parts["unet"]


def test_dora_means_the_same_in_comfyui_when_the_base_is_named(
    files: dict[str, Path], tmp_path: Path
) -> None:
    base = load_network(files["base"], "stage_c")
    torch.manual_seed(5)
    lora = LoRA.create(base, PATTERNS, dora=True)
    for layer in lora.layers.values():
        layer.lora_up.weight.data.normal_(std=0.2)
    state = lora.to_state({"for": "stage_c"})
    write_lora(tmp_path / "dora.safetensors", state)
    arguments = [str(tmp_path / "dora.safetensors"), str(tmp_path / "theirs.safetensors"), "--to", "comfyui"]
    assert convert_checkpoint.main([*arguments, "--base", str(files["base"])]) == 0

    name, layer = next(iter(lora.layers.items()))
    weight = base.get_submodule(name).weight
    theirs = read_lora(tmp_path / "theirs.safetensors").parts["unet"][name]
    # What ComfyUI computes: magnitude / norm of the original weight, times the patched one.
    patched = weight + theirs.up @ theirs.down
    there = patched * theirs.dora_scale / weight.norm(dim=1, keepdim=True)
    torch.testing.assert_close(there, weight + layer.change(weight))
    # And here the file means that too.
    again = LoRA.from_state(read_lora(tmp_path / "theirs.safetensors"), base)
    torch.testing.assert_close(again.layers[name].change(weight), layer.change(weight))


def test_filters_tell_which_layers_an_official_lora_has(files: dict[str, Path], tmp_path: Path) -> None:
    base = load_network(files["base"], "stage_c")
    state = LoRA.create(base, {"*.attn.*": 2}, alpha=1.0).to_state({"for": "stage_c"})
    write_lora(tmp_path / "ours.safetensors", state, "official")
    # Without our header, which says the names, as the published code writes it.
    save_file(read_tensors(tmp_path / "ours.safetensors"), tmp_path / "official.safetensors")
    arguments = [str(tmp_path / "official.safetensors"), "--to", "comfyui", "--base", str(files["base"])]
    for words, status in (([".attn"], 0), (["channelwise"], 2)):
        out = tmp_path / f"{status}.safetensors"
        assert (
            convert_checkpoint.main([arguments[0], str(out), *arguments[1:], "--filters", *words]) == status
        )
    assert read_lora(tmp_path / "0.safetensors").parts["unet"].keys() == state.parts["unet"].keys()


def test_a_network_that_other_tools_cannot_sample_is_said_to_be_one(
    files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    base = load_network(files["base"], "stage_c")
    save_network(tmp_path / "v.safetensors", base, "stage_c", {"gdf": {"target": {"name": "VTarget"}}})
    for source, words in ((files["base"], False), (tmp_path / "v.safetensors", True)):
        out = tmp_path / f"{source.stem}_comfyui.safetensors"
        assert convert_checkpoint.main([str(source), str(out), "--to", "comfyui"]) == 0
        assert ("VTarget; diffusers' pipelines and ComfyUI sample" in capsys.readouterr().out) == words
