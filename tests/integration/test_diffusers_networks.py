"""Single networks go to diffusers and come back: its own classes read what we write, and we what they do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableCascadeUNet
from torch import Tensor

from modules.weights import load_network, read_header
from modules.weights.components import write_component
from modules.weights.conversion import convert, gather
from modules.weights.lazy import lazy_state
from modules.weights.parts import Part
from modules.weights.writers import Settings
from tests.integration.peer_cases import (
    CONFIGS,
    RELATIVE,
    PaellaVQModel,
    random_network,
    relative_difference,
    same_state,
)

CASES = {
    "stage_b": {},
    "stage_c": {},
    "stage_c_switching": {"switch_level": True, "dropout": [0.0, 0.1]},
    "stage_c_one_level": {
        "c_hidden": [32],
        "nhead": 4,
        "blocks": [[2], [1]],
        "level_config": ["CTA"],
        "kernel_size": 5,
        "patch_size": 2,
        "t_conds": [],
        "switch_level": False,
    },
}


def part_of(name: str, network: Any) -> Part:
    return Part(name, network.config, lazy_state(network.state_dict()))


def unet_inputs(name: str, network: Any) -> dict[str, Tensor]:
    """Keywords of our forward."""
    rng = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=rng)

    x, r = noise(network.config["c_in"], 12, 8), torch.rand(2, generator=rng)
    if name == "stage_b":
        return {"x": x, "r": r, "effnet": noise(16, 3, 2), "clip": noise(1, 12)}
    return {
        "x": x,
        "r": r,
        "clip_text": noise(5, 16),
        "clip_text_pooled": noise(1, 12),
        "clip_img": noise(1, 12),
    }


@torch.no_grad()
def unet_difference(name: str, ours: Any, theirs: Any) -> float:
    given = unet_inputs(name, ours)
    renamed = {"x": "sample", "r": "timestep_ratio", "clip": "clip_text_pooled"}
    asked = {renamed.get(key, key): value for key, value in given.items()}
    return relative_difference(ours(**given), theirs(**asked).sample)


@pytest.mark.parametrize("case", CASES)
def test_unets_of_ours_in_diffusers(
    case: str, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    name = case[: len("stage_c")]
    ours = random_network(name, **CASES[case])
    convert({name: part_of(name, ours)}, tmp_path / "unet", Settings("diffusers"))
    theirs, info = StableCascadeUNet.from_pretrained(tmp_path / "unet", output_loading_info=True)
    assert not any(info.values())
    difference = unet_difference(name, ours, theirs.eval())
    record_property("relative_difference", difference)
    assert difference <= RELATIVE


@pytest.mark.parametrize("name", ["stage_b", "stage_c"])
def test_unet_of_diffusers_here(name: str, tmp_path: Path) -> None:
    """Also in several files and as a variant, which diffusers writes by itself."""
    ours = random_network(name)
    write_component(tmp_path / "ours", part_of(name, ours))
    config = StableCascadeUNet.load_config(tmp_path / "ours")
    torch.manual_seed(3)
    theirs = StableCascadeUNet.from_config(config).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "parts": {"max_shard_size": "40KB"},
        "word": {"variant": "bf16"},
    }
    for folder, options in ways.items():
        theirs.save_pretrained(tmp_path / folder, **options)
        loaded: Any = load_network(tmp_path / folder, name)
        assert loaded.config == ours.config | {"block_repeat": loaded.config["block_repeat"]} | {
            key: loaded.config[key]
            for key in ("nhead", "dropout", "self_attn", "switch_level")
            if key in loaded.config
        }
        assert unet_difference(name, loaded.eval(), theirs) <= RELATIVE
    assert len(list((tmp_path / "parts").glob("*-of-*.safetensors"))) > 1


@pytest.mark.parametrize("variant", [None, "bf16"])
def test_large_networks_come_in_parts(variant: str | None, tmp_path: Path) -> None:
    ours = random_network("stage_b")
    write_component(tmp_path, part_of("stage_b", ours), variant=variant, shard_bytes=40_000)
    assert len(list(tmp_path.glob("*-of-*.safetensors"))) > 1
    theirs = StableCascadeUNet.from_pretrained(tmp_path, variant=variant).eval()
    assert unet_difference("stage_b", ours, theirs) <= RELATIVE
    assert same_state(load_network(tmp_path, "stage_b").state_dict(), ours.state_dict())


@pytest.mark.parametrize("name", ["stage_b", "stage_c"])
def test_official_file_of_ours_in_from_single_file(name: str, tmp_path: Path) -> None:
    ours = random_network(name)
    convert({name: part_of(name, ours)}, tmp_path / f"{name}.safetensors", Settings("official"))
    write_component(tmp_path / "config", part_of(name, ours))
    theirs = StableCascadeUNet.from_single_file(
        str(tmp_path / f"{name}.safetensors"), config=str(tmp_path / "config")
    )
    assert unet_difference(name, ours, theirs.eval()) <= RELATIVE


@torch.no_grad()
def test_stage_a_both_ways(tmp_path: Path) -> None:
    ours = random_network("stage_a")
    convert({"stage_a": part_of("stage_a", ours)}, tmp_path / "vqgan", Settings("diffusers"))
    theirs = PaellaVQModel.from_pretrained(tmp_path / "vqgan").eval()
    assert theirs.config.scale_factor == CONFIGS["stage_a"]["scale_factor"]
    images = torch.rand(2, 3, 16, 24)
    latents = theirs.encode(images).latents
    assert relative_difference(ours.encode_unquantized(images) * ours.scale_factor, latents) <= RELATIVE
    for force_not_quantize in (True, False):
        scaled = ours.encode(images).latents if not force_not_quantize else latents / ours.scale_factor
        decoded = theirs.decode(latents, force_not_quantize=force_not_quantize).sample
        assert relative_difference(ours.decode(scaled), decoded) <= RELATIVE
    theirs.save_pretrained(tmp_path / "theirs")
    loaded: Any = load_network(tmp_path / "theirs", "stage_a")
    assert loaded.config == ours.config
    assert same_state(loaded.state_dict(), ours.state_dict())


def test_scale_factor_of_the_released_folder(tmp_path: Path) -> None:
    """Its config has an older model's; ours that has the same number on purpose keeps it."""
    PaellaVQModel(embed_dim=16, bottleneck_blocks=1, num_vq_embeddings=32).save_pretrained(tmp_path / "hub")
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["scale_factor"] == 0.3764
    assert load_network(tmp_path / "hub", "stage_a").config["scale_factor"] == 0.43
    ours = random_network("stage_a", scale_factor=0.3764)
    convert({"stage_a": part_of("stage_a", ours)}, tmp_path / "ours", Settings("diffusers"))
    assert load_network(tmp_path / "ours", "stage_a").config["scale_factor"] == 0.3764


def test_feed_forward_blocks_have_no_place(tmp_path: Path) -> None:
    ours = random_network("stage_c", level_config=["CTA", "CTF"])
    with pytest.raises(ValueError, match="diffusers has blocks for C, T, A only, not 'F'"):
        convert({"stage_c": part_of("stage_c", ours)}, tmp_path / "unet", Settings("diffusers"))
    assert not list(tmp_path.iterdir())


def test_what_is_written_says_where_it_is_from(tmp_path: Path) -> None:
    ours = random_network("stage_c")
    convert({"stage_c": part_of("stage_c", ours)}, tmp_path / "c.safetensors", Settings("official"))
    parts = gather(tmp_path / "c.safetensors")
    convert(parts, tmp_path / "unet", Settings("diffusers", torch.bfloat16))
    header = read_header(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    origin = header["converted"]
    assert (origin["from"], origin["to"], origin["dtype"]) == ("c.safetensors", "diffusers", "bfloat16")
    loaded = load_network(tmp_path / "unet", "stage_c")
    expected = {key: tensor.bfloat16() for key, tensor in ours.state_dict().items()}
    assert same_state(loaded.state_dict(), expected)
