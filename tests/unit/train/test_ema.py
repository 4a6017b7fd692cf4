"""The average follows the weights from its start on, at its interval, with a decay per step."""

import pytest
import torch
from torch import nn

from train.config import EmaConfig
from train.ema import Ema


def averages(config: EmaConfig, num_steps: int) -> list[float]:
    """The average of a weight that is `step` after step `step`."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(0.0)
    ema, found = Ema(layer, config), []
    for step in range(1, num_steps + 1):
        layer.weight.data.fill_(float(step))
        ema.update(step)
        found.append(ema.average[layer.weight].item())
    return found


def test_every_step_moves_by_the_rest_of_the_decay() -> None:
    expected, average = [], 0.0
    for step in range(1, 6):
        average = 0.75 * average + 0.25 * step
        expected.append(average)
    assert averages(EmaConfig(decay=0.75), 5) == pytest.approx(expected)


def test_before_its_start_the_average_is_the_weights() -> None:
    assert averages(EmaConfig(start=3, decay=0.5), 5) == [1, 2, 3, 3.5, 4.25]


def test_an_interval_forgets_as_fast_as_every_step() -> None:
    found = averages(EmaConfig(start=2, interval=2, decay=0.5), 6)
    assert found == [0, 2, 2, 2 + 0.75 * 2, 3.5, 3.5 + 0.75 * 2.5]


def test_weights_and_averages_change_places_and_come_back() -> None:
    layer, frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    module = nn.ModuleList([layer, frozen])
    ema = Ema(module, EmaConfig(decay=0.5))
    assert set(ema.average) == {layer.weight, layer.bias} and ema.covers(layer) and not ema.covers(frozen)
    layer.weight.data.add_(1)
    weight, average = layer.weight.detach().clone(), ema.average[layer.weight].clone()
    with pytest.raises(RuntimeError, match="sampling failed"), ema.in_place():
        assert torch.equal(layer.weight, average)
        raise RuntimeError("sampling failed")
    assert torch.equal(layer.weight, weight) and torch.equal(ema.average[layer.weight], average)
