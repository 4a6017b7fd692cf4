"""The options that let small batches and short trainings learn: frozen statistics, noise on latents."""

import torch
from torch import nn

from tests.integration.recipe_cases import made, make_config, part, pictures
from train.recipe import Recipe
from train.rng import step_rng


def loss(recipe: Recipe, count: int = 4) -> float:
    player = recipe.players[0]
    return float(recipe.loss(player, part(pictures(8), 0, count), step_rng(0, 0, 0, count))[0].detach())


def running_means(recipe: Recipe) -> list[torch.Tensor]:
    networks = recipe.networks().values()
    norms = [m for network in networks for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    return [norm.running_mean.clone() for norm in norms]


def test_batchnorm_follows_the_batches_until_it_is_frozen() -> None:
    recipe = made(make_config("stage_a", recipe={"freeze_batchnorm_step": 1, "adversarial_weight": 0.0}))
    fresh = running_means(recipe)
    loss(recipe)
    recipe.after_step(0)
    followed = running_means(recipe)
    assert any(not torch.equal(a, b) for a, b in zip(fresh, followed, strict=True))
    loss(recipe)
    assert all(torch.equal(a, b) for a, b in zip(followed, running_means(recipe), strict=True))


def test_frozen_batchnorm_makes_a_picture_independent_of_its_batch() -> None:
    recipe = made(make_config("stage_a", recipe={"freeze_batchnorm_step": 0, "adversarial_weight": 0.0}))
    whole, halves = loss(recipe, 2), []
    for index in range(2):
        batch = part(pictures(8), index, 1)
        halves.append(float(recipe.loss("generator", batch, step_rng(0, 0, index, 1))[0].detach()))
    assert abs(whole - sum(halves) / 2) < 1e-5


def test_noise_on_latents_reaches_the_networks_that_read_them() -> None:
    for name in ("stage_a", "stage_b"):
        quiet = loss(made(make_config(name)))
        assert loss(made(make_config(name))) == quiet
        assert loss(made(make_config(name, recipe={"latents_noise": 0.5}))) != quiet


def test_noise_on_latents_does_not_depend_on_how_the_batch_is_cut() -> None:
    frozen = {"freeze_batchnorm_step": 0, "adversarial_weight": 0.0, "latents_noise": 0.5}
    recipe = made(make_config("stage_a", recipe=frozen))
    parts = [
        float(recipe.loss("generator", part(pictures(8), index, 1), step_rng(0, 0, index, 1))[0].detach())
        for index in range(4)
    ]
    assert abs(loss(recipe, 4) - sum(parts) / 4) < 1e-5
