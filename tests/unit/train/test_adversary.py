"""The adaptive weight read off the backward pass is the one that autograd finds for the last layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.losses.adversary import LEAST_WEIGHT, AdversaryBalance, adaptive_weight, recorded_input


def last_layers() -> tuple[nn.Conv2d, nn.Sequential]:
    torch.manual_seed(0)
    last = nn.Conv2d(6, 12, 1)
    return last, nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), last, nn.PixelShuffle(2))


def reconstruction_loss(drawn: Tensor) -> Tensor:
    return drawn.square().mean()


def adversarial_loss(drawn: Tensor) -> Tensor:
    return -0.01 * (drawn * torch.linspace(0, 1, drawn.shape[-1])).tanh().mean()


def one_step(balance: AdversaryBalance, parts: int) -> Tensor:
    """Backward through both losses in equal parts; returns the last layer's gradient."""
    last, decoder = last_layers()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    for part in images.chunk(parts):
        with recorded_input(last) as features:
            drawn = decoder(part)
        views = balance.views(drawn, features[0])
        loss = reconstruction_loss(views[0]) + balance.weight * adversarial_loss(views[1])
        (loss / parts).backward()
    balance.after_step()
    return last.weight.grad


def expected_weight() -> float:
    last, decoder = last_layers()
    drawn = decoder(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)))
    pulls = [
        torch.autograd.grad(loss(drawn), last.weight, retain_graph=True)[0]
        for loss in (reconstruction_loss, adversarial_loss)
    ]
    return adaptive_weight(*pulls).item()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_weight_is_vqgans(parts: int) -> None:
    balance = AdversaryBalance(factor=1.0)
    one_step(balance, parts)
    assert balance.adaptive == pytest.approx(expected_weight(), rel=1e-3)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_factor_scales_the_weight_but_not_the_measurement(factor: float) -> None:
    balance = AdversaryBalance(factor)
    for _ in range(2):
        one_step(balance, 1)
        assert balance.adaptive == pytest.approx(expected_weight(), rel=1e-3)
    assert balance.weight == pytest.approx(factor * expected_weight(), rel=1e-3)


def test_it_counts_from_the_next_step_on() -> None:
    balance = AdversaryBalance(factor=1.0)
    assert balance.weight == LEAST_WEIGHT
    first, second = one_step(balance, 1), one_step(balance, 1)
    assert not torch.allclose(first, second)


def test_a_step_that_is_not_finite_leaves_it_as_it_was() -> None:
    balance = AdversaryBalance(factor=1.0)
    one_step(balance, 1)
    before = balance.adaptive
    last, decoder = last_layers()
    with recorded_input(last) as features:
        drawn = decoder(torch.randn(1, 3, 8, 8))
    views = balance.views(drawn, features[0])
    (F.relu(views[0]).sum() * float("inf") + views[1].sum()).backward()
    balance.after_step()
    assert balance.adaptive == before


def test_it_goes_on_from_its_state_and_idles_without_measurements() -> None:
    balance, again = AdversaryBalance(factor=1.0), AdversaryBalance(factor=1.0)
    one_step(balance, 1)
    again.load_state_dict(balance.state_dict())
    again.after_step()
    assert again.weight == balance.weight


def test_recording_ends_with_its_context() -> None:
    last, decoder = last_layers()
    with recorded_input(last) as features:
        decoder(torch.randn(1, 3, 8, 8))
    decoder(torch.randn(1, 3, 8, 8))
    assert len(features) == 1 and features[0].shape == (1, 6, 4, 4)
