"""LoRA files of every layout: names as the tools have them, and every trip there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from modules.adapters.lora import LoRA
from modules.adapters.lora_state import Factors, LoRAState
from modules.adapters.official_names import name_layers
from modules.weights import save_network
from modules.weights.lora_files import LAYOUTS, read_lora, write_lora

ONETRAINER = [layout for layout in LAYOUTS if layout.startswith("onetrainer")]
TE_LAYOUTS = [layout for layout, style in LAYOUTS.items() if style.text_encoder is not None]
TO_Q, OUT, MLP, KV = (
    "down_blocks.0.2.attention.attn.to_q",
    "down_blocks.0.2.attention.attn.out_proj",
    "up_blocks.1.12.channelwise.4",
    "down_blocks.0.2.kv_mapper.1",
)
TEXT = "text_model.encoder.layers.3.self_attn.q_proj"
FLAT_Q, FLAT_OUT = "down_blocks_0_2_attention_attn_to_q", "down_blocks_0_2_attention_attn_out_proj"
FLAT_TE = "text_model_encoder_layers_3_self_attn_q_proj"
A, B, DOWN, UP = ".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight"
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
# Layouts with the forms of DoRA that they have a place for.
HELD = [
    *((layout, False) for layout in (*LAYOUTS, "official")),
    *((layout, "output") for layout in LAYOUTS),
    *((layout, "input") for layout in LAYOUTS if layout not in ("peft", "diffusers")),
]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float32)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def factors(rank: int = 4, alpha: float | None = 2.0, **more: Tensor) -> Factors:
    return Factors(noise(rank, 16), noise(16, rank), None if alpha is None else torch.tensor(alpha), **more)


def state_of(network: str = "stage_c", text_encoder: bool = False, **layers: Factors) -> LoRAState:
    state = LoRAState(facts={"for": network, "base": {"network": network, "fingerprint": "ab"}})
    names = {"q": TO_Q, "k": TO_Q.replace("_q", "_k"), "v": TO_Q.replace("_q", "_v"), "out": OUT, "mlp": MLP}
    for name, each in (layers or {name: factors() for name in names}).items():
        state.parts["unet"][names[name]] = each
    if text_encoder:
        state.parts["text_encoder"][TEXT] = factors()
    return state


def assert_same(found: LoRAState, expected: LoRAState) -> None:
    """Names, and every bit of every tensor."""
    assert found.tokens.keys() == expected.tokens.keys()
    assert all(torch.equal(found.tokens[text], expected.tokens[text]) for text in found.tokens)
    for part, layers in expected.parts.items():
        assert found.parts[part].keys() == layers.keys()
        for name, each in layers.items():
            for leaf, one, other in zip(each._fields, each, found.parts[part][name], strict=True):
                same = one is other is None or (one.shape == other.shape and torch.equal(one, other))
                assert same, (name, leaf)


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


@pytest.mark.parametrize(
    ("name", "layout", "dora"),
    [
        *(("stage_c", layout, dora) for layout, dora in HELD),
        *(("stage_b", layout, dora) for layout, dora in HELD if layout not in ONETRAINER),
    ],
)
def test_round_trips_are_bit_identical(name: str, layout: str, dora: Any, make: Any, tmp_path: Path) -> None:
    network = make(name, blocks=[[1, 1], [1, 1]] if name == "stage_c" else [[1, 1, 1], [1, 1, 1]])
    # Stage B's downscalers have kernels, of which an official file changes all places alike.
    layers = {"*": 4, "*.depthwise": 0, "*.to_v": 2, "down_downscalers.*": 0 if layout == "official" else 4}
    lora = LoRA.create(network, layers, alpha=8, dora=dora)
    for parameter in lora.parameters():
        parameter.data += noise(*parameter.shape)
    state = lora.to_state({"for": name})
    if layout != "official":
        state.tokens["[ring]"] = noise(1, 12)
    write_lora(tmp_path / "lora.safetensors", state, layout)
    found = read_lora(tmp_path / "lora.safetensors")
    assert (found.facts["layout"], found.facts["for"]) == (layout, name)
    assert_same(found, state)
    for other in ("comfyui", layout):  # to another layout and back
        write_lora(tmp_path / "other.safetensors", found, other)
        found = read_lora(tmp_path / "other.safetensors")
    assert_same(found, state)
    LoRA.from_state(found, network)


@pytest.mark.parametrize("layout", ONETRAINER)
def test_depthwise_changes_in_onetrainers_form_are_the_same(layout: str, make: Any, tmp_path: Path) -> None:
    network = make("stage_c")
    lora = LoRA.create(network, {"*.depthwise": 3}, alpha=6)
    for parameter in lora.parameters():
        parameter.data += noise(*parameter.shape)
    write_lora(tmp_path / "lora.safetensors", lora.to_state({}), layout)
    tensors = load_file(tmp_path / "lora.safetensors")
    assert {tuple(t.shape[1:]) for key, t in tensors.items() if key.endswith((DOWN, A))} >= {(16, 3, 3)}
    assert {tuple(t.shape) for key, t in tensors.items() if key.endswith((UP, B))} == {(1, 3, 1, 1)}
    again = LoRA.from_state(read_lora(tmp_path / "lora.safetensors"), network)
    for name, layer in lora.layers.items():
        weight = network.get_submodule(name).weight
        torch.testing.assert_close(again.layers[name].change(weight), layer.change(weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_number_formats_stay(dtype: torch.dtype, tmp_path: Path) -> None:
    half = Factors(*(t if t is None else t.to(dtype) for t in factors()))
    write_lora(tmp_path / "lora.safetensors", state_of(mlp=half), "kohya")
    found = read_lora(tmp_path / "lora.safetensors").parts["unet"][MLP]
    assert found.down.dtype == found.up.dtype == found.alpha.dtype == dtype


def test_missing_alpha_stays_missing(tmp_path: Path) -> None:
    state = state_of(mlp=factors(alpha=None))
    write_lora(tmp_path / "lora.safetensors", state, "kohya")
    assert_same(read_lora(tmp_path / "lora.safetensors"), state)


def test_one_packed_tensor_becomes_three_that_share_down(tmp_path: Path) -> None:
    packed = Factors(noise(4, 16), noise(48, 4), torch.tensor(4.0))
    stem = "lora_unet_down_blocks_0_2_attention_attn_in_proj"
    tensors = {stem + DOWN: packed.down, stem + UP: packed.up, f"{stem}.alpha": packed.alpha}
    save_file(tensors, tmp_path / "lora.safetensors")
    layers = read_lora(tmp_path / "lora.safetensors").parts["unet"]
    assert torch.equal(torch.cat([each.up for each in layers.values()]), packed.up)
    assert all(torch.equal(each.down, packed.down) for each in layers.values())
    assert [name.split(".")[-1] for name in layers] == ["to_q", "to_k", "to_v"]


def official_tensors(network: Any, rank: int = 4) -> dict[str, Tensor]:
    """As the published training leaves them, for all attention layers."""
    blocks = [name for name, module in network.named_modules() if name.endswith("attention.attn")]
    tensors = {"embeddings.embeddings": noise(2, 12), "embeddings.indices": torch.tensor([7, 300])}
    for number, name in enumerate(blocks):
        c = network.get_submodule(name).channels
        tensors |= {f"weights.{2 * number}.lora_down": noise(rank, c)}
        tensors |= {f"weights.{2 * number}.lora_up": noise(c, rank)}
        tensors |= {f"weights.{2 * number + 1}.lora_down": noise(rank, c)}
        tensors |= {f"weights.{2 * number + 1}.lora_up": noise(3 * c, rank)}
    return tensors


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS])
def test_official_files_go_through_every_layout(layout: str, make: Any, tmp_path: Path) -> None:
    network = make("stage_c")
    tensors = official_tensors(network)
    save_file(tensors, tmp_path / "official.safetensors")
    state = read_lora(tmp_path / "official.safetensors")
    with pytest.raises(ValueError, match="needs a network to name them"):
        write_lora(tmp_path / "other.safetensors", state, layout)
    write_lora(tmp_path / "again.safetensors", state, "official")  # without any names
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys() and all(torch.equal(again[key], tensors[key]) for key in again)
    named = name_layers(state, network)
    write_lora(tmp_path / "other.safetensors", named, layout)
    found = read_lora(tmp_path / "other.safetensors")
    assert found.parts["unet"].keys() == named.parts["unet"].keys()
    write_lora(tmp_path / "again.safetensors", found, "official")
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys() and all(torch.equal(again[key], tensors[key]) for key in again)


def test_projections_of_their_own_are_one_official_layer_with_blocks(make: Any, tmp_path: Path) -> None:
    """What the published code makes of the file: W + up · down / rank, all three at once."""
    network = make("stage_c")
    lora = LoRA.create(network, {"*.attn.to_q": 4, "*.attn.to_v": 2}, alpha=2)
    for parameter in lora.parameters():
        parameter.data += noise(*parameter.shape)
    write_lora(tmp_path / "lora.safetensors", lora.to_state({}), "official")
    tensors = load_file(tmp_path / "lora.safetensors")
    down, up = tensors["weights.0.lora_down"], tensors["weights.0.lora_up"]
    q, k, v = (up @ down / len(down)).chunk(3)
    stem, attention = (
        "down_blocks.0.2.attention.attn",
        network.get_submodule("down_blocks.0.2.attention.attn"),
    )
    torch.testing.assert_close(q, lora.layers[f"{stem}.to_q"].change(attention.to_q.weight))
    torch.testing.assert_close(v, lora.layers[f"{stem}.to_v"].change(attention.to_v.weight))
    assert not k.any()


def test_a_header_that_does_not_fit_is_said(tmp_path: Path) -> None:
    write_lora(tmp_path / "lora.safetensors", state_of(), "official")
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        metadata = file.metadata()
    pair = {"weights.0.lora_down": noise(4, 16), "weights.0.lora_up": noise(16, 4)}
    save_file(pair, tmp_path / "cut.safetensors", metadata)
    with pytest.raises(ValueError, match="its header names 3 layers, it holds 1"):
        read_lora(tmp_path / "cut.safetensors")


def test_layers_without_names_may_fit_several_choices(make: Any, tmp_path: Path) -> None:
    network = make("stage_c", blocks=[[1], [1]], c_hidden=[16], nhead=[2], level_config=["CTA"])
    tensors = {f"weights.{n}.lora_{part}": noise(2, 2) for n in range(2) for part in ("down", "up")}
    save_file(tensors, tmp_path / "lora.safetensors")
    state = read_lora(tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=r"fit no choice .* give the module_filters"):
        LoRA.from_state(state, network)
    for number in range(2):
        state.numbered[number] = factors(rank=2)  # 16 -> 16: kv_mapper
    assert list(name_layers(state, network).parts["unet"]) == [
        "down_blocks.0.2.kv_mapper.1",
        "up_blocks.0.2.kv_mapper.1",
    ]
    with pytest.raises(ValueError, match="depthwise"):
        name_layers(state, network, ["depthwise"])


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


def test_decoder_before_the_names_means_stage_b(tmp_path: Path) -> None:
    each = factors()
    stem = "decoder.clip_txt_pooled_mapper"
    save_file({stem + A: each.down, stem + B: each.up}, tmp_path / "lora.safetensors")
    state = read_lora(tmp_path / "lora.safetensors")
    assert state.facts["for"] == "stage_b" and list(state.parts["unet"]) == ["clip_mapper"]
    assert state.facts["layout"] == "diffusers"


@pytest.mark.parametrize("layout", TE_LAYOUTS)
def test_text_encoder_parts_and_tokens_come_along(layout: str, tmp_path: Path) -> None:
    state = state_of(text_encoder=True)
    state.tokens["[a.b]"], state.output_tokens["[a.b]"] = noise(2, 1280), noise(2, 1280)
    write_lora(tmp_path / "lora.safetensors", state, layout)
    assert {"bundle_emb.[a.b].clip_g", "bundle_emb.[a.b].clip_g_out"} < set(
        load_file(tmp_path / "lora.safetensors")
    )
    found = read_lora(tmp_path / "lora.safetensors")
    assert_same(found, state)
    assert torch.equal(found.output_tokens["[a.b]"], state.output_tokens["[a.b]"])


def test_official_tokens_need_the_table(tmp_path: Path) -> None:
    state = state_of()
    state.tokens["[ring]"] = noise(1, 1280)
    with pytest.raises(ValueError, match="rows of a text encoder's table"):
        write_lora(tmp_path / "lora.safetensors", state, "official")


def test_a_lone_embedding_is_called_as_its_file(tmp_path: Path) -> None:
    save_file({"clip_g": torch.ones(2, 8), "clip_g_out": torch.zeros(2, 8)}, tmp_path / "ring.safetensors")
    state = read_lora(tmp_path / "ring.safetensors")
    assert list(state.tokens) == list(state.output_tokens) == ["ring"]


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


def test_numbers_of_8_bits_are_read_as_bf16(tmp_path: Path) -> None:
    stem, values = "diffusion_model.clip_txt_mapper", torch.randn(2, 8).to(torch.float8_e4m3fn)
    save_file(
        {f"{stem}.lora_down.weight": values, f"{stem}.lora_up.weight": values.t().contiguous()},
        tmp_path / "x.safetensors",
    )
    down = read_lora(tmp_path / "x.safetensors").parts["unet"]["clip_txt_mapper"].down
    assert down.dtype == torch.bfloat16 and torch.equal(down.float(), values.float())


def test_an_empty_file_is_no_lora(tmp_path: Path) -> None:
    save_file({}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="not a LoRA"):
        read_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("ending", ["pt", "ckpt"])
def test_pickled_files_are_read_without_running_them(wrapped: bool, ending: str, tmp_path: Path) -> None:
    state = state_of()
    write_lora(tmp_path / "lora.safetensors", state, "kohya")
    tensors = load_file(tmp_path / "lora.safetensors")
    torch.save({"state_dict": tensors} if wrapped else tensors, tmp_path / f"lora.{ending}")
    assert_same(read_lora(tmp_path / f"lora.{ending}"), state)


def test_a_pickle_with_anything_else_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("/")}, tmp_path / "lora.pt")
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        read_lora(tmp_path / "lora.pt")


def test_a_runs_own_file_is_the_comfyui_layout(make: Any, tmp_path: Path) -> None:
    lora = LoRA.create(make("stage_b"), {"*": 2})
    (tmp_path / "weights").mkdir()
    facts = {"base": {"network": "stage_b"}}
    save_network(tmp_path / "weights" / "lora.safetensors", lora, "lora", facts)
    state = read_lora(tmp_path)
    assert (state.facts["layout"], state.facts["for"]) == ("comfyui", "stage_b")
    assert_same(state, lora.to_state(facts))


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
