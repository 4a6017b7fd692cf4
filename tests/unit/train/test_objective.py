"""The diffusion objective: what is reported, what adapts, both the same however a step is cut."""

import math

import pytest
import torch
from torch import Tensor, nn

from gdf import SamplingSettings
from train.losses.objective import DiffusionObjective
from train.rng import step_rng


def spec(loss_weight: dict) -> dict:
    return {
        "schedule": {"name": "CosineSchedule"},
        "input_scaler": {"name": "VPScaler"},
        "target": {"name": "EpsilonTarget"},
        "noise_cond": {"name": "CosineTNoiseCond"},
        "loss_weight": loss_weight,
    }


ADAPTIVE = {"name": "AdaptiveLossWeight", "buckets": 8}
COMPOSED = {"name": "ComposedLossWeight", "mul": [ADAPTIVE, {"name": "P2LossWeight"}]}


class Silent(nn.Module):
    """Predicts nothing, so that the loss of a noise target is the noise's power, 1."""

    def forward(self, x: Tensor, noise_cond: Tensor, **conditions: Tensor) -> Tensor:
        return torch.zeros_like(x)


def made(loss_weight: dict = ADAPTIVE) -> DiffusionObjective:
    return DiffusionObjective(spec(loss_weight), SamplingSettings(steps=2))


def step(objective: DiffusionObjective, number: int, pictures: int = 32, parts: int = 1) -> dict:
    metrics = {}
    for first in range(0, pictures, pictures // parts):
        latents = torch.zeros(pictures // parts, 2, 4, 4)
        rng = step_rng(0, number, first, pictures // parts)
        _, metrics = objective.loss(Silent(), latents, {"clip": latents}, rng)
    objective.after_step()
    return metrics


def test_losses_are_reported_by_log_snr_from_the_next_step_on() -> None:
    objective = made()
    first, second = step(objective, 0, pictures=300), step(objective, 1)
    names = [f"loss_log_snr_{centre}" for centre in ("-8", "-4", "+0", "+4", "+8")]
    assert all(math.isnan(first[name]) for name in names)
    assert all(second[name] == pytest.approx(1.0, abs=0.3) for name in names)


@pytest.mark.parametrize("loss_weight", [ADAPTIVE, COMPOSED])
def test_the_adaptive_weight_learns_after_the_step_and_not_within(loss_weight: dict) -> None:
    objective = made(loss_weight)
    (part,) = objective.diffusion.adaptive_parts().values()
    before = part.bucket_losses.clone()
    objective.loss(Silent(), torch.zeros(8, 2, 4, 4), {}, step_rng(0, 0, 0, 8))
    assert torch.equal(part.bucket_losses, before)
    objective.after_step()
    assert not torch.equal(part.bucket_losses, before)


def test_statistics_take_no_note_of_what_is_borrowed() -> None:
    alone, beside = made(), made()
    for objective in (alone, beside):
        step(objective, 0)
    latents = torch.full((4, 2, 4, 4), 100.0)
    beside.loss(Silent(), latents, {}, step_rng(0, 1, 99, 4), num_counted=0)
    for objective in (alone, beside):
        step(objective, 1)
    torch.testing.assert_close(alone.state_dict(), beside.state_dict(), rtol=0, atol=0)


def test_what_adapts_does_not_depend_on_how_a_step_is_cut() -> None:
    whole, cut = made(), made()
    for number in range(3):
        step(whole, number)
        step(cut, number, parts=8)
    torch.testing.assert_close(whole.state_dict(), cut.state_dict(), rtol=1e-6, atol=1e-7)


def test_a_loss_that_is_not_finite_is_not_learnt() -> None:
    objective = made()
    latents = torch.zeros(8, 2, 4, 4)
    latents[0] = float("nan")
    objective.loss(Broken(), latents, {}, step_rng(0, 0, 0, 8))
    objective.after_step()
    state = objective.state_dict()
    assert state["reported"].isfinite().all() and state["adaptive"]["loss_weight"]["losses"].isfinite().all()


class Broken(nn.Module):
    """Predicts NaN for pictures that hold some."""

    def forward(self, x: Tensor, noise_cond: Tensor, **conditions: Tensor) -> Tensor:
        return x * 0


def test_it_goes_on_from_its_state_and_refuses_another_diffusions() -> None:
    objective, again = made(), made()
    step(objective, 0)
    again.load_state_dict(objective.state_dict())
    torch.testing.assert_close(again.state_dict(), objective.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="what adapts"):
        made({"name": "P2LossWeight"}).load_state_dict(objective.state_dict())


def test_a_sheet_draws_each_picture_from_its_own_generator() -> None:
    objective, latents = made(), torch.randn(3, 2, 4, 4)
    sheet = objective.sheet(Silent(), latents, {"clip": latents}, {"clip": latents}, step_rng(0, 0, 0, 3))
    alone = objective.sheet(
        Silent(), latents[2:], {"clip": latents[2:]}, {"clip": latents[2:]}, step_rng(0, 0, 2, 1)
    )
    for row, single in zip(sheet, alone, strict=True):
        assert row.shape == latents.shape
        torch.testing.assert_close(row[2:], single)
