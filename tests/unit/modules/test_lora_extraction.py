"""LoRAs extracted from the difference of two networks."""

from typing import Any

import pytest
import torch

from modules.adapters.layers import adaptable_layers
from modules.adapters.lora import LoRA
from modules.adapters.low_rank import leading_values
from tests.unit.modules.lora_cases import merged, trained


@pytest.mark.parametrize("energy", [1.0, 0.9])
def test_extraction_finds_what_was_merged(network: Any, energy: float) -> None:
    lora = trained(network, {"*": 3})
    tuned = merged(network, lora)
    found = LoRA.extract(network, tuned, rank=3, energy=energy)
    again = adaptable_layers(merged(network, found))
    for name, layer in adaptable_layers(tuned).items():
        change = layer.weight - network.get_submodule(name).weight
        missing = (layer.weight - again[name].weight).square().sum() / change.square().sum()
        assert missing < max(1 - energy, 1e-6) + 1e-6, name
    ranks = [layer.rank for layer in found.layers.values()]
    assert max(ranks) <= 3 and (min(ranks) < 3) == (energy < 1)


def test_extraction_takes_the_nearest_of_a_rank(make: Any) -> None:
    base, tuned = make("stage_c").requires_grad_(False), make("stage_c", random=False).requires_grad_(False)
    difference = tuned.clip_txt_mapper.weight - base.clip_txt_mapper.weight
    found = LoRA.extract(base, tuned, rank={"clip_txt_mapper": 2, "*.depthwise": 1})
    left = difference - found.layers["clip_txt_mapper"].change(base.clip_txt_mapper.weight)
    values = torch.linalg.svdvals(difference)
    torch.testing.assert_close(left.norm(), values[2:].norm(), atol=1e-4, rtol=1e-4)
    assert {name.split(".")[-1] for name in found.layers} == {"clip_txt_mapper", "depthwise"}


def test_a_sketch_of_a_large_difference_holds_as_much_as_can_be_held() -> None:
    torch.manual_seed(0)
    spread = torch.arange(1, 401) ** -0.5
    matrix = torch.randn(600, 400) * spread
    left, values, right = leading_values(matrix, 8)
    assert len(values) < 400 and torch.equal(leading_values(matrix, 8)[1], values)
    left_over = matrix - left[:, :8] * values[:8] @ right[:8]
    best = torch.linalg.svdvals(matrix)[8:].norm()
    assert left_over.norm() < 1.002 * best


def test_extraction_says_what_is_wrong(make: Any) -> None:
    network = make("stage_c")
    with pytest.raises(ValueError, match="do not differ"):
        LoRA.extract(network, network, rank=2)
    with pytest.raises(ValueError, match="weights of shapes"):
        LoRA.extract(network, make("stage_c", c_clip_text=8), rank=2)
    with pytest.raises(ValueError, match="energy: expected a share"):
        LoRA.extract(network, make("stage_c", random=False), rank=2, energy=0)
