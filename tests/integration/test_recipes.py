"""Every recipe: learns, takes batches cut in any way, keeps its state, leaves frozen networks alone."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dataset_tools.batches import Batch
from modules.encoders import TextEncoder
from modules.weights import save_network
from train.config import Config, config_from_plain
from train.perceptual import vgg16_features
from train.recipe import Recipe
from train.recipes import make_recipe
from train.rng import seed_global, step_rng

STAGE_A = {"levels": 2, "bottleneck_blocks": 1, "c_hidden": 16, "codebook_size": 32}
COMPRESSOR = {
    "c_latent": 4,
    "backbone": {"stages": [["fused", 1, 3, 2, 24, 24, 1]], "c_last": 32},
}  # factor 4
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
IMAGE = {**TEXT, "image_size": 16, "patch_size": 8}
UNET = {
    "c_r": 8,
    "c_cond": 16,
    "c_hidden": [16, 16],
    "nhead": [2, 2],
    "blocks": [[1, 1], [1, 1]],
    "level_config": ["CT", "CTA"],
    "dropout": 0.0,
}
STAGE_B = {**UNET, "block_repeat": [[1, 1], [1, 1]], "c_clip": 16, "c_effnet": 4}
STAGE_C = {**UNET, "c_in": 4, "c_out": 4, "c_clip_text": 16, "c_clip_text_pooled": 16, "c_clip_img": 16}
GDF = {
    "schedule": {"name": "CosineSchedule"},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "VTarget"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "AdaptiveLossWeight", "buckets": 20},
}
TEXT_ENCODER = {"config": TEXT, "words": ["red", "circle"], "max_length": 8}
RANDOM_A, RANDOM_COMPRESSOR = ({"config": config, "allow_random": True} for config in (STAGE_A, COMPRESSOR))
DATA = {"shards": "unused", "image_size_px": 32, "aspect_ratios": ["1/1"]}
SAMPLING = {"timesteps": 2}
RECIPES: dict[str, dict[str, Any]] = {
    "stage_a": {
        "recipe": {"name": "stage_a", "adversarial_weight": 0.5, "revive_every": 2},
        "model": {
            "stage_a": {"config": STAGE_A},
            "discriminator": {"config": {"c_hidden": 16, "depth": 3}},
        },
    },
    "stage_b": {
        "recipe": {"name": "stage_b", "sampling": SAMPLING},
        "model": {
            "stage_a": RANDOM_A,
            "text_encoder": TEXT_ENCODER,
            "stage_b": {"config": STAGE_B},
            "semantic_compressor": {"config": COMPRESSOR},
        },
        "gdf": GDF,
    },
    "stage_b_frozen_compressor": {
        "recipe": {"name": "stage_b", "noise": "white", "compressor_scale": 0.5, "sampling": SAMPLING},
        "model": {
            "stage_a": RANDOM_A,
            "text_encoder": TEXT_ENCODER,
            "stage_b": {"config": STAGE_B},
            "semantic_compressor": {**RANDOM_COMPRESSOR, "train": False},
        },
        "gdf": GDF,
    },
    "stage_c": {
        "recipe": {"name": "stage_c", "image_kept": 0.5, "sampling": SAMPLING},
        "model": {
            "semantic_compressor": RANDOM_COMPRESSOR,
            "text_encoder": TEXT_ENCODER,
            "image_encoder": {"config": IMAGE},
            "stage_c": {"config": STAGE_C},
        },
        "gdf": GDF,
    },
    "previewer": {
        "recipe": {"name": "previewer"},
        "model": {
            "semantic_compressor": RANDOM_COMPRESSOR,
            "previewer": {"config": {"c_in": 4, "c_hidden": 32}},
        },
    },
}
BATCH_NORM_LEARNS = ("stage_a", "stage_b", "previewer")


def make_config(name: str, **changes: Any) -> Config:
    plain = {"name": "test", "run": {"dir": "unused"}, "data": DATA, **RECIPES[name]}
    plain |= {key: {**plain.get(key, {}), **value} for key, value in changes.items()}
    return config_from_plain(plain)


def made(config: Config) -> Recipe:
    torch.manual_seed(0)
    recipe = make_recipe(config)
    recipe.build(torch.device("cpu"))
    for module in recipe.trainable().values():
        module.train()
    return recipe


def pictures(count: int) -> Batch:
    """Smooth coloured pictures of 32 x 32 px, each another."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    images = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    captions = [("red circle", "a circle, red", "two circles")[index % 3] for index in range(count)]
    keys = [f"{index:04}" for index in range(count)]
    return Batch(images=(images * 255).byte(), captions=captions, keys=keys, facts=[{}] * count)


def part(batch: Batch, first: int, count: int) -> Batch:
    rows = slice(first, first + count)
    return Batch(**{key: value[rows] for key, value in batch.items()})


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


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("stage_a", ["original", "reconstructed, quantized", "reconstructed"]),
        ("stage_b", ["original", "noised", "predicted", "sampled"]),
        ("stage_c", ["original", "noised", "predicted", "sampled"]),
        ("previewer", ["original", "previewed"]),
    ],
)
def test_sample_sheets_hold_pictures(name: str, rows: list[str]) -> None:
    recipe = made(make_config(name))
    sheet = recipe.sample(pictures(3), step_rng(0, 0, 0, 3))
    assert list(sheet) == rows
    for images in sheet.values():
        assert images.shape[:2] == (3, 3) and images.min() >= 0 and images.max() <= 1
    assert not any(images.requires_grad for images in sheet.values())


@pytest.mark.parametrize("viewer", [["previewer"], ["stage_a", "stage_b"], []])
def test_stage_c_shows_latents_by_what_it_is_given(viewer: list[str]) -> None:
    networks = {
        "previewer": {"config": {"c_in": 4, "c_hidden": 32}, "allow_random": True},
        "stage_a": RANDOM_A,
        "stage_b": {"config": STAGE_B, "allow_random": True},
    }
    recipe = made(make_config("stage_c", model={name: networks[name] for name in viewer}))
    sampled = recipe.sample(pictures(2), step_rng(0, 0, 0, 2))["sampled"]
    side = {"previewer": 8 * 8, "stage_a": 32}.get(viewer[0] if viewer else "", 8)
    assert sampled.shape == (2, 3, side, side)


def test_stage_a_learns_from_vgg16_features_too(tmp_path: Path) -> None:
    file = tmp_path / "vgg16.pth"
    config = make_config("stage_a", recipe={"perceptual_weight": 1.0, "perceptual_weights": str(file)})
    with pytest.raises(FileNotFoundError, match=r"vgg16\.pth.*download"):
        made(config)
    torch.save({f"features.{key}": value for key, value in vgg16_features().state_dict().items()}, file)
    recipe = made(config)
    _, metrics = recipe.loss("generator", pictures(2), step_rng(0, 0, 0, 2))
    assert metrics["perceptual"] > 0 and metrics["reconstruction"] > metrics["perceptual"]


def test_half_a_decoder_is_refused() -> None:
    with pytest.raises(ValueError, match="stage_a and stage_b together"):
        make_recipe(make_config("stage_c", model={"stage_a": RANDOM_A}))


@pytest.mark.parametrize("name", RECIPES)
def test_bf16_runs_and_keeps_losses_close(name: str) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        recipe = made(make_config(name, run={"precision": precision}))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses.append(learn(recipe, pictures(4), 3))
            recipe.sample(pictures(2), step_rng(0, 0, 0, 2))
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.05)


def test_headers_say_what_a_reader_needs() -> None:
    stage_b = made(make_config("stage_b", recipe={"compressor_scale": 0.75}))
    assert stage_b.facts("stage_b") == {"gdf": GDF, "compressor_scale": 0.75, "text_encoder": "text_encoder"}
    assert stage_b.facts("semantic_compressor") == {}
    stage_c = made(make_config("stage_c"))
    facts = {"compression": 4.0, "image_size_px": 32, "text_encoder": "text_encoder"}
    assert stage_c.facts("stage_c") == {"gdf": GDF, **facts, "image_encoder": "image_encoder"}


def test_pictures_in_the_compressors_size_stand_for_larger_ones() -> None:
    """As released: trained on 768 px for pictures of 1024 px, 42.67 px per latent of factor 32."""
    facts = made(make_config("stage_c", recipe={"compression": 4 * 4 / 3})).facts("stage_c")
    assert facts["image_size_px"] == round(32 * 4 / 3)
    facts = made(make_config("stage_c", recipe={"compressor_scale": 0.5})).facts("stage_c")
    assert (facts["compression"], facts["image_size_px"]) == (8.0, 32)


def test_encoders_that_the_config_made_are_exported(tmp_path: Path) -> None:
    recipe = made(make_config("stage_c"))
    recipe.export(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image_encoder", "text_encoder"]
    again = TextEncoder(source=str(tmp_path / "text_encoder"))(["red circle"])
    torch.testing.assert_close(again.tokens, recipe.encoders.text(["red circle"]).tokens)


def test_stage_c_reads_the_compressor_of_a_stage_b_run(tmp_path: Path) -> None:
    stage_b = made(make_config("stage_b"))
    (tmp_path / "weights").mkdir()
    compressor = stage_b.networks()["semantic_compressor"]
    save_network(
        tmp_path / "weights" / "semantic_compressor.safetensors", compressor, "semantic_compressor", {}
    )
    config = make_config("stage_c")
    config.model["semantic_compressor"] = {"weights": str(tmp_path)}
    torch.testing.assert_close(made(config).semantic_compressor.state_dict(), compressor.state_dict())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("stage_b", {"model": {"stage_a": {}}}, r"model\.stage_a\.weights: missing"),
        ("stage_b", {"model": {"stage_d": {}}}, r"model\.stage_d: unknown key; did you mean 'stage_[ab]'"),
        ("stage_b", {"recipe": {"caption_droput": 0.1}}, r"recipe\.caption_droput: .*'caption_dropout'"),
        ("stage_b", {"recipe": {"latents_kept": 2.0}}, r"recipe\.latents_kept: expected at most 1"),
        ("stage_b", {"recipe": {"random_scale": [1.0, 0.5]}}, "random_scale: expected 0 < low"),
        ("stage_b", {"recipe": {"noise": "pink"}}, r"recipe\.noise: found 'pink'"),
        ("stage_b", {"model": {"stage_b": {"config": {"c_hiden": [8]}}}}, r"model\.stage_b.*'c_hidden'"),
        (
            "stage_b",
            {"model": {"semantic_compressor": {"train": False}}},
            r"semantic_compressor\.weights: miss",
        ),
        ("stage_b", {"gdf": {"target": {"name": "VTarge"}}}, "'VTarget'"),
        ("stage_b", {"recipe": {"sampling": {"sampler": "DDMP"}}}, "DDPMSampler|DDIMSampler"),
        ("stage_c", {"model": {"text_encoder": {}}}, r"model\.text_encoder: set either source"),
        ("stage_c", {"recipe": {"name": "stage_d"}}, r"recipe\.name: no recipe is called 'stage_d'"),
        ("stage_a", {"recipe": {"perceptual_weight": 1.0}}, "perceptual_weights: missing"),
    ],
)
def test_mistakes_are_named_before_anything_is_built(name: str, changes: dict, message: str) -> None:
    config = make_config(name)
    for group, values in changes.items():
        getattr(config, group).update(values)
    with pytest.raises(ValueError, match=message) as error:
        make_recipe(config)
    assert "\n" not in str(error.value)
