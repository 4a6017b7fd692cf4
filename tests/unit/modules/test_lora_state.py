"""What makes a LoRA again: its config, its file, its state; and states that fit nowhere."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from modules.adapters.lora import LoRA
from modules.adapters.lora_state import Factors, LoRAState
from modules.weights import read_header, read_tensors, save_network
from tests.unit.modules.lora_cases import DORA, trained


@pytest.mark.parametrize("dora", DORA)
def test_config_and_file_make_it_again(network: Any, dora: Any, tmp_path: Any) -> None:
    lora = trained(network, alpha=2, dropout=0.25, dora=dora)
    json.dumps(lora.config)
    save_network(tmp_path / "lora.safetensors", lora, "lora", {"base": {"network": "stage_c"}})
    again = LoRA(**read_header(tmp_path / "lora.safetensors")["config"])
    again.load_state_dict(read_tensors(tmp_path / "lora.safetensors"))
    for name, layer in lora.layers.items():
        for one, other in zip(layer.factors(), again.layers[name].factors(), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    assert {layer.dropout.p for layer in again.layers.values()} == {0.25}


def test_weights_come_back_after_being_without_storage(make: Any) -> None:
    lora = LoRA.create(make("stage_c"), {"*": 2}, alpha=3)
    lora.to_empty(device="cpu")
    lora.init_weights()
    for layer in lora.layers.values():
        assert not layer.lora_up.weight.any() and layer.lora_down.weight.any() and layer.alpha == 3


def test_a_state_that_does_not_fit_is_refused(make: Any) -> None:
    network = make("stage_c")
    state = LoRA.create(network, {"*.kv_mapper.*": 2}).to_state({})
    other = make("stage_c", c_cond=8)
    with pytest.raises(ValueError, match=r"kv_mapper.1: expected factors of a weight \[16, 8\]"):
        LoRA.from_state(state, other)
    name, factors = state.parts["unet"].popitem()
    state.parts["unet"][name] = factors._replace(dora_scale=torch.ones(5, 1))
    with pytest.raises(ValueError, match=r"expected magnitudes of a weight .* found \[5, 1\]"):
        LoRA.from_state(state, network)
    del state.parts["unet"][name]
    state.parts["unet"]["down_blocks.0.2.kv_maper.1"] = factors
    with pytest.raises(ValueError, match="did you mean 'down_blocks.0.2.kv_mapper.1'"):
        LoRA.from_state(state, network)
    with pytest.raises(ValueError, match="changes no layer of the text encoder"):
        LoRA.from_state(LoRAState(), network, part="text_encoder")


def test_a_missing_alpha_is_the_rank_also_where_the_factors_number_format_lacks_it() -> None:
    network = nn.Sequential(nn.Linear(600, 600))
    state = LoRAState()
    factors = torch.zeros(257, 600, dtype=torch.bfloat16)
    state.parts["unet"]["0"] = Factors(factors, factors.t().contiguous())
    assert float(LoRA.from_state(state, network).layers["0"].scale) == 1.0
