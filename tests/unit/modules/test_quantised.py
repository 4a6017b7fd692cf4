"""Frozen layers in four and eight bits: how large, how near, and what learns through them."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.adapters.eight_bit import EightBitLinear
from modules.adapters.four_bit import FourBitLinear
from modules.adapters.lora import LoRA
from modules.adapters.quantised import LAYERS, quantise, size_bytes

pytest.importorskip("bitsandbytes")
WIDE = {"c_hidden": [64, 64], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]]}
KINDS = ("nf4", "int8")


@pytest.fixture
def network(make: Any) -> Any:
    return make("stage_c", **WIDE).eval().requires_grad_(False)


# 4.5 bits in the place of 32, or 8 and a scale per row; the sixteen levels weigh more in small layers.
@pytest.mark.parametrize(("kind", "share"), [("nf4", 1 / 6), ("int8", 1 / 3)])
def test_linear_layers_take_a_small_share(network: Any, kind: Any, share: float) -> None:
    linear = sum(p.nbytes for name, p in network.named_parameters() if p.ndim == 2)
    size = quantise(network, kind)
    assert size.after == size_bytes(network)
    assert size.before - size.after > linear * (1 - share)
    assert not [
        name for name in network.state_dict() if "in_proj" in name or name.endswith("kv_mapper.1.weight")
    ]


@pytest.mark.parametrize(("kind", "most"), [("nf4", 0.3), ("int8", 0.02)])
def test_outputs_stay_near(network: Any, inputs: Any, kind: Any, most: float) -> None:
    before = network(**inputs("stage_c"))
    quantise(network, kind)
    error = (network(**inputs("stage_c")) - before).norm() / before.norm()
    assert 0 < error < most


def test_weights_are_the_nearest_of_sixteen_levels_per_block() -> None:
    weight = torch.randn(32, 64)
    layer = FourBitLinear(weight, None)
    scaled = weight.reshape(-1, 64) / weight.reshape(-1, 64).abs().amax(1, keepdim=True)
    nearest = (scaled[..., None] - layer.levels).abs().argmin(-1)
    expected = layer.levels[nearest] * weight.reshape(-1, 64).abs().amax(1, keepdim=True)
    torch.testing.assert_close(layer.weight, expected.reshape(32, 64), atol=1e-4, rtol=1e-4)


def test_eight_bit_weights_are_the_nearest_of_255_levels_per_row() -> None:
    weight = torch.randn(32, 64)
    weight[3] = 0
    layer = EightBitLinear(weight, None)
    step = weight.abs().amax(1, keepdim=True) / 127
    assert layer.codes.dtype == torch.int8 and layer.codes.abs().max() == 127
    assert ((layer.weight - weight).abs() <= 0.5001 * step).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dora", [False, True])
def test_a_lora_learns_beside_them(network: Any, inputs: Any, dora: bool, kind: Any) -> None:
    given = inputs("stage_c")
    target = network(**given).roll(1, 0)
    quantise(network.to(torch.bfloat16), kind)
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


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_as_through_the_weight(kind: str) -> None:
    layer: Any = LAYERS[kind](torch.randn(24, 16), torch.randn(24))
    x = torch.randn(3, 2, 16, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 2, -1))
    torch.testing.assert_close(layer(x), x @ layer.weight.t() + layer.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_pass_keeps_codes_and_no_weights(kind: str) -> None:
    layer: Any = LAYERS[kind](torch.randn(256, 256).bfloat16(), None)
    x = torch.randn(4, 256, dtype=torch.bfloat16, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    assert sum(tensor.nbytes for tensor in kept) < 1.1 * 256 * 256


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_is_followed(kind: str) -> None:
    layer: Any = LAYERS[kind](torch.randn(24, 16), torch.randn(24))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 16)).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_freezing_are_asked_for(make: Any, kind: Any) -> None:
    network = make("stage_c", **WIDE)
    with pytest.raises(ValueError, match="freeze the network first"):
        quantise(network, kind)
    network.requires_grad_(False)
    LoRA.create(network, {"*.to_q": 2}).attach(network)
    with pytest.raises(ValueError, match="attach adapters afterwards"):
        quantise(network, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_merged_into_them(network: Any, kind: Any) -> None:
    lora = LoRA.create(network, {"*.to_q": 2})
    quantise(network, kind)
    with pytest.raises(ValueError, match=r"to_q is quantised"):
        lora.merge(network)


def test_only_what_is_quantised_moves_to_the_device_where_it_is_quantised() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(8, 8, 1)).requires_grad_(False)
    quantise(network, "int8", torch.device("meta"))
    assert network[0].codes.device.type == "meta" and network[1].weight.device.type == "cpu"  # type: ignore[union-attr]


def test_a_missing_library_is_said(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        quantise(network)
