"""The average follows the weights from its start on, at its interval, with a decay per step."""

import pytest
import torch
from torch import nn

from train.config import EmaConfig
from train.ema import Ema, decay_after


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
    found = averages(EmaConfig(decay=0.75), 40)
    for step in range(31, 41):
        assert found[step - 1] == pytest.approx(0.75 * found[step - 2] + 0.25 * step)


def test_the_first_weights_are_soon_forgotten_however_slow_the_decay() -> None:
    weight, average = 1.0, 1.0  # the weight falls from 1 to 0 at the first step
    for step in range(1, 101):
        weight = 0.0
        average += (1 - decay_after(step, EmaConfig(decay=0.9999))) * (weight - average)
    assert average < 1e-6
    decays = [decay_after(step, EmaConfig(decay=0.99)) for step in range(1, 2000)]
    assert decays == sorted(decays) and decays[-1] == 0.99


def test_before_its_start_the_average_is_the_weights() -> None:
    found = averages(EmaConfig(start=3, decay=0.1), 5)
    assert found == pytest.approx([1, 2, 3, 3.9, 4.89])


def test_an_interval_forgets_as_fast_as_every_step() -> None:
    found = averages(EmaConfig(start=2, interval=2, decay=0.1), 6)
    assert found == pytest.approx([1, 2, 2, 2 + 0.99 * 2, 3.98, 3.98 + 0.99 * 2.02])


def test_a_run_shorter_than_the_interval_has_an_average_too() -> None:
    found = averages(EmaConfig(interval=100, decay=0.75), 20)
    assert found == averages(EmaConfig(interval=1, decay=0.75), 20)
    assert found[-1] > 15


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
