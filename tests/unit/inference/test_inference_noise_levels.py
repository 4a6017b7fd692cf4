"""What Stage C says of pictures at each noise level."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import gdf
from inference import Cascade
from inference.noise_levels import at_noise_levels, times_of

LEVELS = [-6.0, 0.0, 5.0]
COLOURS = ("red", "navy", "white")


@pytest.fixture(scope="module")
def cascade(tiny_runs: Path) -> Cascade:
    return Cascade.load(str(tiny_runs), device="cpu")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [Image.new("RGB", (40, 24 + 8 * i), colour) for i, colour in enumerate(COLOURS)]


def test_asks_at_the_levels_that_are_given(cascade: Cascade, images: list[Image.Image]) -> None:
    found = at_noise_levels(cascade, ["a red circle"] * 3, images, LEVELS)
    assert [level.log_snr for level in found] == pytest.approx(LEVELS, abs=0.01)
    assert all(level.noised.shape == level.guessed.shape for level in found)
    assert all(level.x0_error.shape == (3,) for level in found)


def test_errors_of_clean_latents_noise_and_v_are_the_same_mistake(
    cascade: Cascade, images: list[Image.Image]
) -> None:
    # The small networks predict v = a noise - b x0, and a² + b² = 1: whoever errs by d in v errs by b d in x0
    # and by a d in the noise.
    for level in at_noise_levels(cascade, ["a"] * 3, images, LEVELS):
        signal = torch.tensor(level.log_snr).sigmoid()  # a²
        torch.testing.assert_close(level.x0_error, (1 - signal) * level.target_error, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(level.noise_error, signal * level.target_error, rtol=1e-3, atol=1e-6)


def test_the_clean_latents_are_seen_where_there_is_no_noise(
    cascade: Cascade, images: list[Image.Image]
) -> None:
    clean, noisy = at_noise_levels(cascade, ["a"] * 3, images, [9.0, -9.0])
    other = at_noise_levels(cascade, ["a"] * 3, images, [9.0], seed=7)[0]
    torch.testing.assert_close(clean.noised, other.noised, atol=0.1, rtol=0)
    assert (noisy.noised - clean.noised).abs().max() > 1


def test_batches_change_nothing_but_rounding(cascade: Cascade, images: list[Image.Image]) -> None:
    whole = at_noise_levels(cascade, ["a", "red", "blue"], images, LEVELS)
    parts = at_noise_levels(cascade, ["a", "red", "blue"], images, LEVELS, batch_size=2)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.target_error, other.target_error, rtol=1e-4, atol=1e-6)


def test_prompts_and_seeds_count(cascade: Cascade, images: list[Image.Image]) -> None:
    first, other, later = (
        at_noise_levels(cascade, [prompt] * 3, images, [0.0], seed=seed)[0]
        for prompt, seed in (("red circle", 0), ("blue square", 0), ("red circle", 1))
    )
    assert torch.equal(first.noised, other.noised) and not torch.equal(first.guessed, other.guessed)
    assert not torch.equal(first.noised, later.noised)


def test_the_ends_are_taken_for_what_lies_beyond_them() -> None:
    schedule = gdf.CosineSchedule()
    assert times_of(schedule, [-50.0, 50.0]) == [1.0, 0.0]
    assert schedule(torch.tensor(times_of(schedule, [1.5]))).item() == pytest.approx(1.5, abs=0.01)


def test_a_wrong_number_of_prompts_is_named(cascade: Cascade, images: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match="2 prompts for 3 pictures"):
        at_noise_levels(cascade, ["a", "a"], images, LEVELS)
