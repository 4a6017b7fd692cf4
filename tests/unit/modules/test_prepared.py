"""What a network computes once per picture, against computing it in every step."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.adapters.ip_adapter import IPAdapter, attention_channels
from modules.adapters.lora import LoRA
from modules.unet import Prepared

BOTH = pytest.mark.parametrize("name", ["stage_b", "stage_c"])


def conditions(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in given.items() if key not in ("x", "r")}


def prepare(network: nn.Module, given: dict[str, Tensor]) -> Prepared:
    return network.prepare(given["x"], **conditions(given))  # type: ignore[operator]


@BOTH
@pytest.mark.parametrize("size", [(16, 24), (13, 9)])
@pytest.mark.parametrize("self_attn", [True, False])
def test_prepared_conditions_change_nothing(
    name: str, size: tuple[int, int], self_attn: bool, make: Any, inputs: Any
) -> None:
    # In float64, where the order of sums, which differs by processor, does not show.
    network = make(name, self_attn=self_attn).double()
    given = {key: value.double() for key, value in inputs(name, *size).items()}
    prepared = prepare(network, given)
    for step in range(2):
        given["x"], given["r"] = given["x"] + step, given["r"] / (1 + step)
        torch.testing.assert_close(network(**given, prepared=prepared), network(**given))


@BOTH
def test_prepared_conditions_are_not_looked_at_again(name: str, make: Any, inputs: Any) -> None:
    network, given = make(name), inputs(name)
    prepared = prepare(network, given)
    expected = network(**given, prepared=prepared)
    others = {key: torch.full_like(value, torch.nan) for key, value in conditions(given).items()}
    assert torch.equal(network(**{**given, **others}, prepared=prepared), expected)


def test_every_attention_is_projected_but_where_a_call_is_waited_for(make: Any, inputs: Any) -> None:
    network, given = make("stage_c"), inputs("stage_c")
    assert len(prepare(network, given).projected) == len(attention_channels(network)) == 6
    expected = network(**given)
    block = network.down_blocks[0][2]
    weights = {key: value.clone() for key, value in block.state_dict().items()}
    for value in block.state_dict().values():
        value.fill_(torch.nan)  # as if they lay elsewhere
    block.register_forward_pre_hook(lambda *_: block.load_state_dict(weights) and None)
    prepared = prepare(network, given)
    assert len(prepared.projected) == 5
    torch.testing.assert_close(network(**given, prepared=prepared), expected)


def test_adapters_count_in_what_is_prepared(make: Any, inputs: Any) -> None:
    network, given = make("stage_c"), inputs("stage_c")
    plain = network(**given)
    lora = LoRA.create(network, {"*": 2})
    for parameter in lora.parameters():
        nn.init.normal_(parameter, std=0.3)
    adapter = IPAdapter(attention_channels(network), c_image=7, c_tokens=5)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    lora.attach(network)
    adapter.attach(network)
    given["image_tokens"] = torch.randn(2, 3, 5)
    found = network(**given, prepared=prepare(network, given))
    assert not torch.allclose(found, plain, atol=0.1)
    torch.testing.assert_close(found, network(**given))
