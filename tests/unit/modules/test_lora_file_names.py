"""Names in LoRA files: those that each tool writes, and all that are read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.adapters.lora_state import Factors
from modules.weights.lora_files import LAYOUTS, read_lora, write_lora
from tests.unit.modules.lora_file_cases import (
    DOWN,
    FLAT_OUT,
    FLAT_Q,
    FLAT_TE,
    KV,
    MLP,
    OUT,
    TEXT,
    TO_Q,
    UP,
    A,
    B,
    factors,
    noise,
    state_of,
)

pytestmark = pytest.mark.usefixtures("seed")

# The layouts' tables: for to_q, out_proj and the text encoder's q_proj the stems, and the ends.
TABLE: dict[str, tuple[str, str, str | None, tuple[str, ...]]] = {
    "comfyui": (
        f"diffusion_model.{TO_Q}",
        f"diffusion_model.{OUT}",
        f"text_encoders.clip_g.transformer.{TEXT}",
        (DOWN, UP, ".alpha"),
    ),
    "kohya": (f"lora_unet_{FLAT_Q}", f"lora_unet_{FLAT_OUT}", f"lora_te_{FLAT_TE}", (DOWN, UP, ".alpha")),
    "peft": ("down_blocks.0.2.attention.to_q", "down_blocks.0.2.attention.to_out.0", None, (A, B)),
    "diffusers": (
        "prior.down_blocks.0.2.attention.to_q",
        "prior.down_blocks.0.2.attention.to_out.0",
        f"text_encoder.{TEXT}",
        (A, B),
    ),
    "onetrainer_legacy": (
        f"lora_prior_unet_{FLAT_Q}",
        f"lora_prior_unet_{FLAT_OUT}",
        f"lora_prior_te_{FLAT_TE}",
        (DOWN, UP, ".alpha"),
    ),
    "onetrainer_kohya": (
        "lora_unet_down_blocks_0_2_attention_attn_in_proj_0",
        f"lora_unet_{FLAT_OUT}",
        f"lora_te_{FLAT_TE}",
        (DOWN, UP, ".alpha"),
    ),
    "onetrainer_diffusers": (
        "prior.down_blocks.0.2.attention.to_q",
        "prior.down_blocks.0.2.attention.to_out.0",
        f"text_encoder.{TEXT}",
        (A, B),
    ),
    "onetrainer_original": ("down_blocks.0.2.attention.attn.in_proj.0", OUT, None, (A, B, ".alpha")),
    "onetrainer_comfy": (
        "diffusion_model.down_blocks.0.2.attention.attn.in_proj.0",
        f"diffusion_model.{OUT}",
        None,
        (A, B, ".alpha"),
    ),
}
# What ComfyUI accepts for Stage C, beyond what our writers write.
COMFYUI_SPELLINGS = [
    (f"lora_prior_unet_{FLAT_Q}", "unet", TO_Q),
    (f"lora_unet_{FLAT_Q}", "unet", TO_Q),
    ("lora_unet_up_blocks_1_12_channelwise_4", "unet", MLP),
    ("lora_unet_down_blocks_0_2_kv_mapper_1", "unet", KV),
    ("lora_unet_down_blocks_0_1_mapper_crp", "unet", "down_blocks.0.1.mapper_crp"),
    ("lora_unet_clip_txt_pooled_mapper", "unet", "clip_txt_pooled_mapper"),
    ("lora_unet_down_downscalers_1_1_blocks_0", "unet", "down_downscalers.1.1.blocks.0"),
    ("lora_unet_up_repeat_mappers_3_0", "unet", "up_repeat_mappers.3.0"),
    (f"diffusion_model.{MLP}", "unet", MLP),
    (f"lora_prior_te_{FLAT_TE}", "text_encoder", TEXT),
    (f"lora_te_{FLAT_TE}", "text_encoder", TEXT),
    ("lora_te_text_model_encoder_layers_31_mlp_fc1", "text_encoder", "text_model.encoder.layers.31.mlp.fc1"),
    (f"text_encoder.{TEXT}", "text_encoder", TEXT),
    (f"text_encoders.clip_g.transformer.{TEXT}", "text_encoder", TEXT),
    ("lora_prior_te_text_projection", "text_encoder", "text_projection"),
]
ENDS = [
    (DOWN, UP),
    (A, B),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
]


@pytest.mark.parametrize("layout", TABLE)
def test_names_are_those_of_the_tables(layout: str, tmp_path: Path) -> None:
    to_q, out, text_encoder, ends = TABLE[layout]
    state = state_of(q=factors(), out=factors(), text_encoder=text_encoder is not None)
    write_lora(tmp_path / "lora.safetensors", state, layout)
    stems = [stem for stem in (to_q, out, text_encoder) if stem is not None]
    found = load_file(tmp_path / "lora.safetensors")
    assert set(found) == {stem + end for stem in stems for end in ends}
    foreign = tmp_path / "foreign.safetensors"  # the same tensors without our header
    save_file(found, foreign)
    again = read_lora(foreign)
    assert again.parts["unet"].keys() == {TO_Q, OUT}
    assert set(again.parts["text_encoder"]) == ({TEXT} if text_encoder else set())
    alike = {"onetrainer_diffusers": "diffusers"}  # the same names; alpha is in up
    assert again.facts["layout"] == alike.get(layout, layout)


def test_every_layout_has_its_table() -> None:
    assert TABLE.keys() == LAYOUTS.keys()


@pytest.mark.parametrize(("stem", "part", "name"), COMFYUI_SPELLINGS)
@pytest.mark.parametrize("ends", ENDS)
def test_what_comfyui_accepts_is_read(
    stem: str, part: str, name: str, ends: tuple[str, str], tmp_path: Path
) -> None:
    each = factors()
    tensors = {stem + ends[0]: each.down, stem + ends[1]: each.up, f"{stem}.alpha": torch.tensor(2.0)}
    save_file(tensors, tmp_path / "lora.safetensors")
    found = read_lora(tmp_path / "lora.safetensors").parts[part][name]
    assert torch.equal(found.down, each.down) and torch.equal(found.up, each.up) and found.alpha == 2


def test_one_packed_tensor_becomes_three_that_share_down(tmp_path: Path) -> None:
    packed = Factors(noise(4, 16), noise(48, 4), torch.tensor(4.0))
    stem = "lora_unet_down_blocks_0_2_attention_attn_in_proj"
    tensors = {stem + DOWN: packed.down, stem + UP: packed.up, f"{stem}.alpha": packed.alpha}
    save_file(tensors, tmp_path / "lora.safetensors")
    layers = read_lora(tmp_path / "lora.safetensors").parts["unet"]
    assert torch.equal(torch.cat([each.up for each in layers.values()]), packed.up)
    assert all(torch.equal(each.down, packed.down) for each in layers.values())
    assert [name.split(".")[-1] for name in layers] == ["to_q", "to_k", "to_v"]


def test_decoder_before_the_names_means_stage_b(tmp_path: Path) -> None:
    each = factors()
    stem = "decoder.clip_txt_pooled_mapper"
    save_file({stem + A: each.down, stem + B: each.up}, tmp_path / "lora.safetensors")
    state = read_lora(tmp_path / "lora.safetensors")
    assert state.facts["for"] == "stage_b" and list(state.parts["unet"]) == ["clip_mapper"]
    assert state.facts["layout"] == "diffusers"


def test_a_lone_embedding_is_called_as_its_file(tmp_path: Path) -> None:
    save_file({"clip_g": torch.ones(2, 8), "clip_g_out": torch.zeros(2, 8)}, tmp_path / "ring.safetensors")
    state = read_lora(tmp_path / "ring.safetensors")
    assert list(state.tokens) == list(state.output_tokens) == ["ring"]


@pytest.mark.parametrize(
    "key",
    [
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight",
        "diffusion_model.input_blocks.4.1.proj_in.lora_down.weight",
        f"diffusion_model.{MLP}.hada_w1_a",
        f"diffusion_model.{MLP}.diff",
        "clip_txt_mapper.weight",
    ],
)
def test_keys_that_are_not_understood_are_named(key: str, tmp_path: Path) -> None:
    good = {f"diffusion_model.{TO_Q}{DOWN}": noise(4, 16), f"diffusion_model.{TO_Q}{UP}": noise(16, 4)}
    save_file({**good, key: noise(4, 16)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError) as caught:
        read_lora(tmp_path / "lora.safetensors")
    assert f"1 keys not understood ({key})" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", [f"diffusion_model.{TO_Q}{DOWN}", "weights.0.lora_up"])
def test_half_a_pair_is_not_understood(key: str, tmp_path: Path) -> None:
    save_file({key: noise(4, 16)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="not understood"):
        read_lora(tmp_path / "lora.safetensors")
