"""bf16 weights follow their updates in the mean, whatever their size, and always by the same chance."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.adapters.lora_layer import LoRALayer
from modules.schema import ConfigError
from train.config import OptimConfig
from train.optim.optimizers import make_optimizer
from train.optim.rates import set_learning_rate
from train.optim.rounding import lower, round_stochastically
from train.optim.updater import Updater
from train.rng import rounding_rng

CPU = torch.device("cpu")


@pytest.mark.parametrize("value", [1.0 + 2**-12, -3.3, 1e-20, 0.999, 6e-39])
def test_a_value_is_rounded_to_a_neighbour_and_is_their_mean(value: float) -> None:
    values = torch.full((40_000,), value)
    found = round_stochastically(values, rounding_rng(0, 0, 0, CPU)).float()
    below, above = found.min(), found.max()
    assert below <= values[0] <= above and above - below <= abs(value) / 128 + 1e-40
    share = (found == above).double().mean()  # of what was rounded up
    expected = (values[0].double() - below) / (above.double() - below)
    assert share == pytest.approx(float(expected), abs=4 * 0.5 / 200)


def test_what_bf16_holds_stays() -> None:
    values = torch.tensor([0.0, 1.0, -1.5, torch.inf, -torch.inf, 2.0**-133]).repeat(1000)
    assert torch.equal(round_stochastically(values, rounding_rng(0, 0, 0, CPU)).float(), values)


def small_steps(weights: str, seed: int = 0, count: int = 100) -> Tensor:
    """Weights of 1 after `count` steps of the tenth of half a bf16's width, down."""
    layer = nn.Linear(64, 64, bias=False)
    nn.init.ones_(layer.weight)
    layer.to(torch.bfloat16)
    optimizer = make_optimizer(layer, OptimConfig(lr=2e-4, weight_decay=0.0))
    for step in range(count):
        layer.weight.grad = torch.ones_like(layer.weight)
        if weights == "nearest":
            optimizer.step()
        else:
            Updater(optimizer, seed).update([layer.weight], step)
    return layer.weight.detach().float()


def test_an_update_that_is_lost_in_rounding_to_the_nearest_is_learnt() -> None:
    assert (small_steps("nearest") == 1).all()
    assert small_steps("stochastic").mean() == pytest.approx(1 - 100 * 2e-4, abs=1e-3)


def test_the_chance_is_that_of_seed_and_step() -> None:
    assert torch.equal(small_steps("stochastic", count=2), small_steps("stochastic", count=2))
    assert not torch.equal(small_steps("stochastic", count=2), small_steps("stochastic", seed=1, count=2))
    drawn = [torch.rand(1, generator=rounding_rng(0, *at, CPU)).item() for at in ((0, 0), (0, 1), (1, 0))]
    assert len(set(drawn)) == 3


def test_only_what_enters_products_is_lowered_and_only_what_learns() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.Linear(4, 4))
    network.append(nn.Embedding(3, 4))
    network[3].requires_grad_(False)
    lower(network)
    lowered = {name for name, p in network.named_parameters() if p.dtype == torch.bfloat16}
    assert lowered == {"0.weight", "2.weight"}
    with pytest.raises(ConfigError, match=r"optim\.weights: found bf16_stochastic, but nothing"):
        lower(LoRALayer([2, 4], [3, 2], 1.0))


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "paged_adamw8bit"])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_states_are_as_beside_fp32_weights_and_come_back_as_they_were(name: Any) -> None:
    if name != "adamw":
        pytest.importorskip("bitsandbytes")
    config = OptimConfig(name=name)
    layer = nn.Linear(96, 96)
    lower(layer)
    optimizer = make_optimizer(layer, config)
    for parameter in layer.parameters():
        parameter.grad = torch.randn_like(parameter)
    Updater(optimizer, 0).update(list(layer.parameters()), 0)
    state = deepcopy(optimizer.state[layer.weight])
    formats = {value.dtype for key, value in state.items() if isinstance(value, Tensor)}
    assert torch.bfloat16 not in formats and (name == "adamw" or torch.uint8 in formats)
    other = make_optimizer(layer, config)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    found = other.state[layer.weight]
    assert found.keys() == state.keys()
    for key, value in state.items():
        if isinstance(value, Tensor):
            assert torch.equal(found[key], value) and found[key].dtype == value.dtype, key


def test_an_update_of_some_parameters_leaves_the_others_and_uses_each_ones_group() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = deepcopy(layers)
    optimizer = make_optimizer(layers, OptimConfig(lr=1.0, weight_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    for parameter in layers.parameters():
        parameter.grad = torch.ones_like(parameter)
    Updater(optimizer, 0).update([layers[0].weight, layers[1].bias], 0)  # type: ignore[list-item]
    torch.testing.assert_close(layers[0].weight, before[0].weight * (1 - 0.1 * 0.5) - 0.1)
    torch.testing.assert_close(layers[1].bias, before[1].bias - 0.1)
    assert torch.equal(layers[0].bias, before[0].bias) and torch.equal(layers[1].weight, before[1].weight)
