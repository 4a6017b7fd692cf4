"""Frozen layers in four bits: how large, how near, and what learns through them."""

import sys
from typing import Any

import pytest
import torch

from modules.adapters.four_bit import FourBitLinear, quantise, size_bytes
from modules.adapters.lora import LoRA

pytest.importorskip("bitsandbytes")
WIDE = {"c_hidden": [64, 64], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]]}


@pytest.fixture
def network(make: Any) -> Any:
    return make("stage_c", **WIDE).eval().requires_grad_(False)


def test_linear_layers_take_less_than_a_sixth(network: Any) -> None:
    linear = sum(p.nbytes for name, p in network.named_parameters() if p.ndim == 2)
    size = quantise(network)
    assert size.after == size_bytes(network)
    # 4.5 bits in the place of 32; the sixteen levels of every layer weigh more in small ones.
    assert size.before - size.after > linear * (1 - 1 / 6)
    assert not [
        name for name in network.state_dict() if "in_proj" in name or name.endswith("kv_mapper.1.weight")
    ]


def test_outputs_stay_near(network: Any, inputs: Any) -> None:
    before = network(**inputs("stage_c"))
    quantise(network)
    error = (network(**inputs("stage_c")) - before).norm() / before.norm()
    assert 0 < error < 0.3


def test_weights_are_the_nearest_of_sixteen_levels_per_block(make: Any) -> None:
    weight = torch.randn(32, 64)
    layer = FourBitLinear(weight, None)
    scaled = weight.reshape(-1, 64) / weight.reshape(-1, 64).abs().amax(1, keepdim=True)
    nearest = (scaled[..., None] - layer.levels).abs().argmin(-1)
    expected = layer.levels[nearest] * weight.reshape(-1, 64).abs().amax(1, keepdim=True)
    torch.testing.assert_close(layer.weight, expected.reshape(32, 64), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dora", [False, True])
def test_a_lora_learns_beside_them(network: Any, inputs: Any, dora: bool) -> None:
    given = inputs("stage_c")
    target = network(**given)
    quantise(network.to(torch.bfloat16))
    lora = LoRA.create(network, {"*": 4}, dora=dora)
    lora.attach(network)
    optimizer = torch.optim.Adam(lora.parameters(), lr=2e-3)
    losses = []
    for _ in range(6):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (network(**given) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_gradients_pass_as_through_the_weight(make: Any) -> None:
    layer = FourBitLinear(torch.randn(24, 16), torch.randn(24))
    x = torch.randn(3, 16, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, -1))
    torch.testing.assert_close(layer(x), x @ layer.weight.t() + layer.bias)


def test_autocast_is_followed() -> None:
    layer = FourBitLinear(torch.randn(24, 16), torch.randn(24))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 16)).dtype == torch.bfloat16


def test_order_and_freezing_are_asked_for(make: Any) -> None:
    network = make("stage_c", **WIDE)
    with pytest.raises(ValueError, match="freeze the network first"):
        quantise(network)
    network.requires_grad_(False)
    LoRA.create(network, {"*.to_q": 2}).attach(network)
    with pytest.raises(ValueError, match="attach adapters afterwards"):
        quantise(network)


def test_nothing_is_merged_into_them(network: Any) -> None:
    lora = LoRA.create(network, {"*.to_q": 2})
    quantise(network)
    with pytest.raises(ValueError, match=r"to_q is in 4 bits"):
        lora.merge(network)


def test_a_missing_library_is_said(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        quantise(network)
