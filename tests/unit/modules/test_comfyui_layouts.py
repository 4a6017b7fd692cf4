"""Files as ComfyUI tells them apart, with its older names and open_clip's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.weights import load_network
from modules.weights.conversion import convert, gather
from modules.weights.layouts import clip, comfyui
from modules.weights.lazy import lazy_state
from modules.weights.parts import Part, read_parts, recognised
from modules.weights.writers import Settings
from tests.unit.modules.layout_cases import SMALL, assert_same, keys_of, tensors


def without_headers(file: Path) -> Path:
    """The same tensors in a file of another origin."""
    bare = file.with_name(f"bare_{file.name}")
    save_file(load_file(file), bare)
    return bare


def test_checkpoints_for_comfyui(parts: dict[str, Part], tmp_path: Path) -> None:
    """Every key that ComfyUI tells such files by; without our header they are recognised here too."""
    convert(
        {name: part for name, part in parts.items() if name != "controlnet"},
        tmp_path / "all",
        Settings("comfyui"),
    )
    files = {
        stage: tmp_path / "all" / f"stable_cascade_{stage}.safetensors" for stage in ("stage_b", "stage_c")
    }
    c, b = keys_of(files["stage_c"]), keys_of(files["stage_b"])
    unet = "model.diffusion_model."
    assert c[f"{unet}clip_txt_mapper.weight"][0] == SMALL["stage_c"]["c_cond"]
    assert b[f"{unet}down_blocks.1.0.channelwise.0.weight"][-1] == 128 and f"{unet}clip_mapper.weight" in b
    for keys in (b, c):
        assert f"{unet}clf.1.weight" in keys
        assert not any("in_proj" in key for key in keys)
        assert "text_encoder.clip_g.transformer.text_model.encoder.layers.1.mlp.fc1.weight" in keys
        assert "text_encoder.clip_g.transformer.text_projection.weight" in keys
    assert c[f"{unet}down_blocks.0.2.attention.attn.to_q.weight"] == (64, 64)
    assert f"{unet}down_blocks.0.2.attention.attn.out_proj.bias" in c
    assert "vae.encoder.backbone.1.0.block.0.1.num_batches_tracked" in c
    assert "vae.previewer.blocks.11.num_batches_tracked" in c
    assert "clip_l_vision.vision_model.embeddings.class_embedding" in c
    assert b["vae.vquantizer.codebook.weight"] == (32, 4)
    for stage, file in files.items():
        bare = gather(without_headers(file))
        assert bare.keys() == gather(file).keys()
        for name, part in bare.items():
            assert_same(parts[name], part, also_config=False)
        assert bare[stage].config == parts[stage].config
        assert load_network(without_headers(file), stage).config == parts[stage].config


def test_single_files_as_comfyui_tells_them_apart(parts: dict[str, Part], tmp_path: Path) -> None:
    marks = {
        "stage_a": "vquantizer.codebook.weight",
        "semantic_compressor": "backbone.1.0.block.0.1.num_batches_tracked",
        "previewer": "blocks.11.num_batches_tracked",
        "text_encoder": "text_model.encoder.layers.1.mlp.fc1.weight",
        "controlnet": "backbone.0.0.weight",
        "stage_c": "model.diffusion_model.clip_txt_mapper.weight",
    }
    for name, mark in marks.items():
        convert({name: parts[name]}, tmp_path / f"{name}.safetensors", Settings("comfyui"))
        assert mark in keys_of(tmp_path / f"{name}.safetensors")


def test_decoders_of_stage_c_in_one_file(parts: dict[str, Part], tmp_path: Path) -> None:
    """ComfyUI's VAE file, with the mean and deviation that it keeps among the weights."""
    state = {f"encoder.{key}": tensor for key, tensor in tensors(parts["semantic_compressor"]).items()}
    state |= {f"previewer.{key}": tensor for key, tensor in tensors(parts["previewer"]).items()}
    save_file(
        {**state, "encoder.mean": torch.zeros(3), "encoder.std": torch.ones(3)}, tmp_path / "vae.safetensors"
    )
    found = read_parts(tmp_path / "vae.safetensors")
    assert found.keys() == {"semantic_compressor", "previewer"}
    for name, part in found.items():
        assert_same(parts[name], part, also_config=False)


def test_bare_unets_with_separate_projections(parts: dict[str, Part], tmp_path: Path) -> None:
    """Without prefix, as ComfyUI takes them too; one third missing is said."""
    separate = {
        key: tensor.read().clone()
        for key, tensor in comfyui.to_theirs("stage_c", parts["stage_c"].state).items()
    }
    save_file(separate, tmp_path / "bare.safetensors")
    assert_same(parts["stage_c"], read_parts(tmp_path / "bare.safetensors")["stage_c"], also_config=False)
    del separate["down_blocks.0.2.attention.attn.to_k.weight"]
    save_file(separate, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"less.safetensors: down_blocks.0.2.*to_k is missing"):
        load_network(tmp_path / "less.safetensors", "stage_c")


def test_older_and_open_clip_names_of_encoders(parts: dict[str, Part]) -> None:
    """ComfyUI's old transposed text projection, and open_clip's packed picture encoder."""
    text = tensors(parts["text_encoder"])
    old = {**text, "text_projection": text["text_projection.weight"].t(), "logit_scale": torch.ones(())}
    del old["text_projection.weight"]
    assert_same(
        parts["text_encoder"], Part("text_encoder", {}, clip.to_ours(lazy_state(old))), also_config=False
    )
    picture = tensors(parts["image_encoder"])
    packed = {"visual.proj": picture.pop("visual_projection.weight").t()}
    for number in range(2):
        layer = f"vision_model.encoder.layers.{number}.self_attn"
        for kind in ("weight", "bias"):
            rows = [picture.pop(f"{layer}.{letter}_proj.{kind}") for letter in "qkv"]
            packed[f"visual.transformer.resblocks.{number}.attn.in_proj_{kind}"] = torch.cat(rows)
    for name, tensor in picture.items():
        for theirs, ours in reversed(clip.OPEN_CLIP.items()):
            name = name.replace(ours, theirs) if name.startswith("vision_model") else name
        packed[name.replace("vision_model.", "visual.")] = tensor
    name, config, state = recognised(lazy_state(packed))
    assert name == "image_encoder"
    assert_same(parts["image_encoder"], Part(name, config, dict(state)), also_config=False)
    told = {key: value for key, value in config.items() if key != "architectures"}
    assert parts["image_encoder"].config.items() >= told.items()
