"""Which layers of a network a LoRA changes, and how much of each."""

from typing import Any

import pytest
import torch
from torch import nn

from modules.adapters.layers import adaptable_layers
from modules.adapters.lora import LoRA
from modules.attention import PackedLinear
from tests.unit.modules.lora_cases import trained


def test_every_kind_of_layer_is_chosen(network: Any) -> None:
    chosen = set(LoRA.create(network, {"*": 1}).layers)
    kinds = nn.Linear | nn.Conv2d | PackedLinear
    assert chosen == {name for name, module in network.named_modules() if isinstance(module, kinds)}
    assert any(name.endswith("attn.to_k") for name in chosen)


def test_the_last_pattern_that_matches_gives_the_rank(make: Any) -> None:
    lora = LoRA.create(make("stage_c"), {"*.attn.*": 8, "up_blocks.*": 2, "*.to_k": 0})
    ranks = {name: layer.rank for name, layer in lora.layers.items()}
    assert ranks["down_blocks.0.2.attention.attn.to_q"] == 8
    assert ranks["up_blocks.0.2.attention.attn.to_q"] == 2
    assert not [name for name in ranks if name.endswith("to_k")]
    assert not [name for name in ranks if name.startswith("down_blocks") and ".attn." not in name]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"*.atn.to_q": 4}, "matches no layer; did you mean 'attn.to_q'"),
        ({"*": 4, "clip_text_mapper": 2}, "did you mean 'clip_txt_mapper'"),
        ({"*": -1}, "at least 0"),
        ({"*": 0}, "choose no layer"),
    ],
)
def test_wrong_patterns_are_named(make: Any, layers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRA.create(make("stage_c"), layers)


def test_the_change_is_scaled_by_alpha_over_rank(make: Any) -> None:
    network = make("stage_c")
    layer = trained(network, {"clip_txt_mapper": 4}, alpha=6).layers["clip_txt_mapper"]
    product = layer.lora_up.weight @ layer.lora_down.weight
    torch.testing.assert_close(layer.change(network.clip_txt_mapper.weight), product * 1.5)


def test_the_base_holds_the_layers_that_learn(network: Any) -> None:
    lora = LoRA.create(network, {"*": 2})
    lora.attach(network)
    learning = {id(p) for p in network.parameters() if p.requires_grad}
    assert learning == {id(p) for p in lora.parameters()}
    assert set(adaptable_layers(network)) == set(lora.layers)  # and nothing of the LoRA's own
