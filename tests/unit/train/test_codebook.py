"""Codebook care: counts, perplexity, and the revival of dead codes, the same however a batch is cut."""

import pytest
import torch
from torch import Tensor

from train.losses.codebook import CodebookCare
from train.rng import step_rng

SIZE = 16


def observe(care: CodebookCare, indices: Tensor, vectors: Tensor, step: int, parts: int = 1) -> None:
    count = len(indices) // parts
    for first in range(0, len(indices), count):
        rows = slice(first, first + count)
        care.observe(indices[rows], vectors[rows], step_rng(0, step, first, count), step)


def some_codes(pictures: int = 4, used: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(used, (pictures, 3, 4)), torch.randn(pictures, 2, 3, 4)


def test_use_is_measured_over_the_window() -> None:
    care = CodebookCare(SIZE, window_steps=0, seed=0)
    indices = torch.arange(4).repeat(6).view(2, 3, 4)
    for step in range(3):
        observe(care, indices, torch.zeros(2, 2, 3, 4), step)
        care.after_step(step, torch.zeros(SIZE, 2))
    assert care.metrics()["codebook_used"] == 4 / SIZE
    assert care.metrics()["codebook_perplexity"] == pytest.approx(4.0)


def test_perplexity_is_one_for_a_single_code() -> None:
    care = CodebookCare(SIZE, window_steps=0, seed=0)
    observe(care, torch.zeros(2, 3, 4, dtype=torch.int64), torch.zeros(2, 2, 3, 4), 0)
    care.after_step(0, torch.zeros(SIZE, 2))
    assert care.metrics()["codebook_perplexity"] == pytest.approx(1.0)


def test_unused_codes_move_onto_encoder_outputs_and_the_others_stay() -> None:
    care, codebook = CodebookCare(SIZE, window_steps=1, seed=0), torch.full((SIZE, 2), 100.0)
    indices, vectors = some_codes()
    observe(care, indices, vectors, 0)
    care.after_step(0, codebook)
    used = torch.bincount(indices.flatten(), minlength=SIZE) > 0
    assert (codebook[used] == 100).all()
    outputs = vectors.permute(0, 2, 3, 1).reshape(-1, 2)
    assert (codebook[~used][:, None] == outputs).all(dim=2).any(dim=1).all()
    assert len(codebook[~used].unique(dim=0)) == (~used).sum()
    assert care.metrics()["codebook_revived"] == (~used).sum()


def test_no_code_moves_onto_what_is_not_finite() -> None:
    """The loss of such a step is skipped; its codes would stay."""
    care, codebook = CodebookCare(SIZE, window_steps=1, seed=0), torch.zeros(SIZE, 2)
    indices, vectors = some_codes()
    vectors[1:, 0] = float("nan")
    observe(care, indices, vectors, 0)
    care.after_step(0, codebook)
    assert codebook.isfinite().all() and care.metrics()["codebook_revived"] > 0


def test_nothing_moves_within_a_window() -> None:
    care, codebook = CodebookCare(SIZE, window_steps=3, seed=0), torch.zeros(SIZE, 2)
    indices, vectors = some_codes()
    for step in range(2):
        observe(care, indices, vectors, step)
        care.after_step(step, codebook)
    assert (codebook == 0).all()
    observe(care, indices, vectors, 2)
    care.after_step(2, codebook)
    assert (codebook != 0).any()


def test_a_code_used_once_in_the_window_lives() -> None:
    care, codebook = CodebookCare(SIZE, window_steps=2, seed=0), torch.zeros(SIZE, 2)
    everything = torch.arange(12).view(1, 3, 4)
    observe(care, everything, torch.ones(1, 2, 3, 4), 0)
    care.after_step(0, codebook)
    observe(care, torch.zeros_like(everything), torch.ones(1, 2, 3, 4), 1)
    care.after_step(1, codebook)
    assert (codebook[:12] == 0).all() and (codebook[12:] == 1).all()


def test_the_same_codes_move_however_the_batch_is_cut() -> None:
    codebooks = []
    for parts in (1, 2, 4):
        care, codebook = CodebookCare(SIZE, window_steps=1, seed=3), torch.zeros(SIZE, 2)
        observe(care, *some_codes(), step=0, parts=parts)
        care.after_step(0, codebook)
        codebooks.append(codebook)
    assert torch.equal(codebooks[0], codebooks[1]) and torch.equal(codebooks[0], codebooks[2])


def test_more_dead_codes_than_outputs_are_revived_by_and_by() -> None:
    care, codebook = CodebookCare(64, window_steps=1, seed=0), torch.zeros(64, 2)
    observe(care, torch.zeros(1, 2, 2, dtype=torch.int64), torch.randn(1, 2, 2, 2), 0)
    care.after_step(0, codebook)
    assert (codebook != 0).any(dim=1).sum() == 4


def test_the_window_goes_on_from_its_state() -> None:
    care, again = (CodebookCare(SIZE, window_steps=2, seed=0) for _ in range(2))
    observe(care, *some_codes(), step=0)
    care.after_step(0, torch.zeros(SIZE, 2))
    again.load_state_dict(care.state_dict())
    assert again.metrics() == care.metrics()
    with pytest.raises(ValueError, match="codebook of 8 codes"):
        CodebookCare(8, window_steps=2, seed=0).load_state_dict(care.state_dict())


def test_what_is_borrowed_is_not_counted_and_no_code_moves_there() -> None:
    indices, vectors = some_codes()
    found = []
    for with_borrowed in (False, True):
        care, codebook = CodebookCare(SIZE, window_steps=1, seed=0), torch.zeros(SIZE, 2)
        observe(care, indices, vectors, 0)
        if with_borrowed:
            care.observe(15 - indices, vectors + 9, step_rng(0, 0, 0, len(indices)), 0, num_counted=0)
        care.after_step(0, codebook)
        found.append((care.metrics(), codebook))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
