"""Chance is a function of (seed, step, picture) and of nothing else."""

import torch

from train.rng import StepRng, mixed_seed, seed_global, step_rng


def draws(rng: StepRng) -> list[float]:
    return [torch.rand((), generator=generator).item() for generator in rng.samples]


def test_a_global_batch_may_be_cut_anywhere() -> None:
    whole = draws(step_rng(seed=1, step=5, first=0, count=8))
    parts = draws(step_rng(1, 5, 0, 3)) + draws(step_rng(1, 5, 3, 5))
    assert whole == parts and len(set(whole)) == 8


def test_every_part_of_the_seed_matters() -> None:
    base = draws(step_rng(1, 5, 0, 2))
    assert base == draws(step_rng(1, 5, 0, 2))
    for other in (step_rng(2, 5, 0, 2), step_rng(1, 6, 0, 2), step_rng(1, 5, 2, 2)):
        assert not set(base) & set(draws(other))


def test_the_shared_generator_is_the_same_for_all_parts_and_no_pictures() -> None:
    one, other = step_rng(1, 5, 0, 4), step_rng(1, 5, 4, 4)
    shared = torch.rand(3, generator=one.shared)
    assert torch.equal(shared, torch.rand(3, generator=other.shared))
    assert shared[0].item() not in draws(one)


def test_seeds_do_not_repeat() -> None:
    seeds = {mixed_seed(seed, step, i) for seed in range(5) for step in range(-2, 50) for i in range(-1, 20)}
    assert len(seeds) == 5 * 52 * 21 and all(0 <= seed < 2**63 for seed in seeds)


def test_the_global_generator_differs_by_rank_and_micro_batch() -> None:
    def draw(*where: int) -> float:
        seed_global(0, *where)
        return torch.rand(()).item()

    assert draw(3, 0, 0) == draw(3, 0, 0)
    assert len({draw(3, 0, 0), draw(3, 1, 0), draw(3, 0, 1), draw(4, 0, 0)}) == 4
