"""Conditions are dropped as often as asked, picture by picture, from the step's generators alone."""

import pytest
import torch

from train.conditioning import chance, drop_captions, keep_rows, random_scale
from train.rng import StepRng


def step_rng(pictures: int, first: int = 0, shared: int = 7) -> StepRng:
    samples = [torch.Generator().manual_seed(1000 + first + index) for index in range(pictures)]
    return StepRng(shared=torch.Generator().manual_seed(shared), samples=samples)


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.9, 1.0])
def test_chance_hits_its_probability(probability: float) -> None:
    share = sum(chance(step_rng(2000), probability)) / 2000
    assert share == pytest.approx(probability, abs=0.025)


def test_a_draw_does_not_depend_on_the_rest_of_the_batch() -> None:
    whole = chance(step_rng(8), 0.5)
    assert whole == chance(step_rng(3), 0.5) + chance(step_rng(5, first=3), 0.5)


def test_the_number_of_draws_does_not_depend_on_the_probability() -> None:
    never, often = step_rng(4), step_rng(4)
    chance(never, 0.0)
    chance(often, 0.7)
    assert torch.equal(torch.rand(3, generator=never.samples[2]), torch.rand(3, generator=often.samples[2]))


def test_dropped_captions_are_empty_and_the_others_untouched() -> None:
    captions = [f"picture {index}" for index in range(200)]
    kept = drop_captions(captions, 0.5, step_rng(200))
    dropped = [text == "" for text in kept]
    assert 60 < sum(dropped) < 140
    assert all(text in ("", caption) for text, caption in zip(kept, captions, strict=True))
    assert drop_captions(captions, 0.0, step_rng(200)) == captions


def test_dropped_rows_are_zero_and_the_others_untouched() -> None:
    condition = torch.rand(64, 3, 2, 2) + 1
    kept = keep_rows(condition, 0.5, step_rng(64))
    zero = (kept == 0).flatten(1).all(1)
    assert 10 < zero.sum() < 54
    assert torch.equal(kept[~zero], condition[~zero])
    assert torch.equal(keep_rows(condition, 1.0, step_rng(64)), condition)


def test_dropping_a_row_stops_its_gradient_only() -> None:
    condition = torch.ones(32, 2, requires_grad=True)
    kept = keep_rows(condition, 0.5, step_rng(32))
    kept.sum().backward()
    assert torch.equal(condition.grad, kept.detach())


def test_random_scale_is_the_same_for_every_part_of_a_step() -> None:
    assert random_scale(0.5, 1.0, step_rng(2)) == random_scale(0.5, 1.0, step_rng(9, first=2))
    scales = [random_scale(0.5, 1.0, step_rng(1, shared=seed)) for seed in range(200)]
    assert 0.5 <= min(scales) < 0.55 and 0.95 < max(scales) <= 1.0
