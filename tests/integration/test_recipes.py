"""Every recipe: learns, takes batches cut in any way, keeps its state, leaves frozen networks alone."""

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from tests.integration.recipe_cases import (
    RECIPES,
    made,
    make_config,
    part,
    pictures,
)
from train.losses.perceptual import vgg16_features
from train.recipe import Recipe
from train.rng import seed_global, step_rng


def learn(
    recipe: Recipe, batch: Batch, steps: int, first_step: int = 0, chance: int | None = None
) -> list[float]:
    """Plain training of all players; returns the first player's losses. chance: the same step's, always."""
    modules, losses = recipe.trainable(), []
    optimizers = {name: torch.optim.AdamW(module.parameters(), 3e-3) for name, module in modules.items()}
    for step in range(first_step, first_step + steps):
        for player in recipe.players:
            for name, module in modules.items():
                module.requires_grad_(name == player)
            seed_global(0, step, 0, 0)
            rng = step_rng(0, step if chance is None else chance, 0, len(batch["captions"]))
            loss, _ = recipe.loss(player, batch, rng)
            if player == recipe.players[0]:
                losses.append(loss.item())
            if loss.requires_grad:
                optimizers[player].zero_grad()
                loss.backward()
                optimizers[player].step()
        recipe.after_step(step)
    return losses


def whole_state(recipe: Recipe) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, network in recipe.networks().items()
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_change_every_network_that_learns(name: str) -> None:
    recipe = made(make_config(name))
    before = whole_state(recipe)
    learn(recipe, pictures(4), 2)
    after = whole_state(recipe)
    assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())
    for network in recipe.networks():
        assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith(network))


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_of_a_batch_learnt_by_heart_falls(name: str) -> None:
    config = make_config(name, recipe={"adversarial_weight": 0.0}) if name == "stage_a" else make_config(name)
    if "gdf" in RECIPES[name]:
        config.gdf["loss_weight"] = {"name": "ConstantLossWeight"}
        config.recipe |= {"caption_dropout": 0.0}
    losses = learn(made(config), pictures(4), 40, chance=0)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", RECIPES)
def test_one_batch_of_eight_equals_four_of_two(name: str) -> None:
    """But for BatchNorm, whose statistics are of each micro-batch by its nature: it is put into eval mode."""
    gradients, states = [], []
    for count in (8, 2):
        recipe, batch = made(make_config(name)), pictures(8)
        for module in nn.ModuleDict(recipe.networks()).modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        for step in range(2):  # twice, for the state that the first step leaves behind counts too
            gradients.append(_gradients(recipe, batch, count, step))
            recipe.after_step(step)
        states.append(recipe.state_dict())
    for step in range(2):
        for key, value in gradients[step].items():
            torch.testing.assert_close(gradients[2 + step][key], value, rtol=1e-3, atol=2e-5, msg=key)
    torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-6)


def _gradients(recipe: Recipe, batch: Batch, count: int, step: int) -> dict[str, Tensor]:
    for player in recipe.players:
        for name, module in recipe.trainable().items():
            module.requires_grad_(name == player)
        recipe.trainable()[player].zero_grad()
        for first in range(0, 8, count):
            rng = step_rng(0, step, first, count)
            (recipe.loss(player, part(batch, first, count), rng)[0] * count / 8).backward()
    return {
        f"{player}.{key}": parameter.grad
        for player, module in recipe.trainable().items()
        for key, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def frozen_networks(recipe: Recipe) -> list[nn.Module]:
    """Everything that the recipe holds and does not learn."""
    learning = {id(part) for module in recipe.trainable().values() for part in module.modules()}
    held = list(vars(recipe).values())
    for value in held:  # grows while it is walked
        if isinstance(value, dict):
            held += value.values()
        elif type(value).__name__ in ("Encoders", "LatentViewer"):
            held += vars(value).values()
    return [value for value in held if isinstance(value, nn.Module) and id(value) not in learning]


@pytest.mark.parametrize(
    ("name", "count"), [("stage_b", 2), ("stage_b_frozen_compressor", 3), ("stage_c", 3), ("previewer", 1)]
)
def test_frozen_networks_stay_as_they_are_and_in_eval_mode(name: str, count: int) -> None:
    recipe = made(make_config(name))
    frozen = frozen_networks(recipe)
    assert len(frozen) == count
    before = [{key: value.clone() for key, value in network.state_dict().items()} for network in frozen]
    learn(recipe, pictures(4), 2)
    recipe.sample(pictures(2), step_rng(0, 0, 0, 2))
    for network, state in zip(frozen, before, strict=True):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
        torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)


def test_a_compressor_that_learns_is_in_train_mode_again_after_a_sheet() -> None:
    recipe = made(make_config("stage_b"))
    before = whole_state(recipe)
    recipe.sample(pictures(2), step_rng(0, 0, 0, 2))
    assert all(module.training for module in recipe.trainable()["model"].modules())
    torch.testing.assert_close(whole_state(recipe), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_on_from_its_state(name: str) -> None:
    config, batch = make_config(name), pictures(4)
    whole, first, second = made(config), made(config), made(config)
    learn(first, batch, 3)
    for ours, theirs in zip(second.networks().values(), first.networks().values(), strict=True):
        ours.load_state_dict(theirs.state_dict())
    state = first.state_dict()
    torch.save(state, buffer := io.BytesIO())
    second.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    torch.testing.assert_close(second.state_dict(), state, rtol=0, atol=0)
    learn(whole, batch, 3)
    torch.testing.assert_close(
        learn(second, batch, 2, first_step=3), learn(whole, batch, 2, first_step=3), rtol=0, atol=0
    )


def test_stage_a_learns_from_vgg16_features_too(tmp_path: Path) -> None:
    file = tmp_path / "vgg16.pth"
    config = make_config("stage_a", recipe={"perceptual_weight": 1.0, "perceptual_weights": str(file)})
    with pytest.raises(FileNotFoundError, match=r"vgg16\.pth.*download"):
        made(config)
    torch.save({f"features.{key}": value for key, value in vgg16_features().state_dict().items()}, file)
    recipe = made(config)
    _, metrics = recipe.loss("generator", pictures(2), step_rng(0, 0, 0, 2))
    assert metrics["perceptual"] > 0 and metrics["reconstruction"] > metrics["perceptual"]


@pytest.mark.parametrize("name", RECIPES)
def test_bf16_runs_and_keeps_losses_close(name: str) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        recipe = made(make_config(name, run={"precision": precision}))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses.append(learn(recipe, pictures(4), 3))
            recipe.sample(pictures(2), step_rng(0, 0, 0, 2))
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.05)
