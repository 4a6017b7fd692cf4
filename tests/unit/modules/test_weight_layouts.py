"""Layouts of the tools that cannot be installed here, checked by their key tables; and every round trip."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import modules
from modules.encoders import ImageEncoder, TextEncoder
from modules.weights import load_network
from modules.weights.conversion import convert, gather
from modules.weights.layouts import clip, comfyui, diffusers
from modules.weights.lazy import LazyTensor, lazy_state
from modules.weights.parts import Part, read_parts, recognised
from modules.weights.writers import WRITERS, Settings

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
CLIP = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "projection_dim": 12,
}
SMALL: dict[str, dict[str, Any]] = {
    "stage_a": {"bottleneck_blocks": 1, "c_hidden": 16, "codebook_size": 32, "scale_factor": 0.5},
    "stage_b": {
        "c_hidden": [64, 128],
        "nhead": [-1, 2],
        "blocks": [[1, 1], [1, 1]],
        "level_config": ["CT", "CTA"],
    }
    | {"c_cond": 32, "c_r": 8, "c_clip": 12, "block_repeat": [[1, 1], [2, 1]], "dropout": [0.0, 0.1]},
    "stage_c": {"c_hidden": [64, 128], "nhead": [1, 2], "blocks": [[1, 1], [1, 1]], "c_cond": 32, "c_r": 8}
    | {
        "block_repeat": [[1, 1], [1, 1]],
        "c_clip_text": 64,
        "c_clip_text_pooled": 12,
        "c_clip_img": 12,
        "dropout": [0.1, 0.1],
    },
    "semantic_compressor": {"c_latent": 16},
    "previewer": {"c_hidden": 16},
    "controlnet": {"c_in": 1, "c_proj": 16, "bottleneck_mode": "effnet"},
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    """All networks and encoders, small where their structure allows it."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    TextEncoder(config={**CLIP, "hidden_act": "gelu"}, words=["red"], max_length=8).save(
        folder / "text_encoder"
    )
    picture = {**CLIP, "image_size": 32, "patch_size": 16, "hidden_act": "quick_gelu"}
    ImageEncoder(config=picture).save(folder / "image_encoder")
    networks = {name: modules.build(name, config) for name, config in SMALL.items()}
    found = gather(folder)
    for name, network in networks.items():
        found[name] = Part(name, network.config, lazy_state(network.state_dict()), {"note": name})
    return found


def tensors(part: Part) -> dict[str, Tensor]:
    return {name: tensor.read() for name, tensor in part.state.items()}


def assert_same(one: Part, other: Part, also_config: bool = True) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name
    if also_config:
        assert other.config.items() >= one.config.items()
        assert other.facts.items() >= one.facts.items()


def keys_of(file: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(file, "pt") as opened:
        return {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118


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
