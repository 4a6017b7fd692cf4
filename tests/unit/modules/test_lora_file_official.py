"""LoRA files of the published training, whose layers have numbers instead of names."""

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
from modules.weights.lora_files import LAYOUTS, read_lora, write_lora
from tests.unit.modules.lora_file_cases import factors, noise, state_of

pytestmark = pytest.mark.usefixtures("seed")


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


@pytest.mark.parametrize("layout", ["official", "onetrainer_diffusers"])
def test_a_lora_of_alpha_0_comes_back_as_numbers(layout: str, tmp_path: Path) -> None:
    """Both layouts multiply alpha into `up`, of which nothing is left then."""
    state = LoRAState(facts={"for": "stage_c"})
    state.parts["unet"]["clip_img_mapper"] = Factors(noise(2, 8), noise(6, 2), torch.tensor(0.0))
    write_lora(tmp_path / "0.safetensors", state, layout)
    found = read_lora(tmp_path / "0.safetensors").parts["unet"]["clip_img_mapper"]
    assert not found.up.any() and found.alpha == 0


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


def test_official_tokens_need_the_table(tmp_path: Path) -> None:
    state = state_of()
    state.tokens["[ring]"] = noise(1, 1280)
    with pytest.raises(ValueError, match="rows of a text encoder's table"):
        write_lora(tmp_path / "lora.safetensors", state, "official")
