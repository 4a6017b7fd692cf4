"""The IP-Adapter recipe in real runs: alone, resumed, under FSDP; its base stays as it is."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modules
from modules.encoders import ImageEncoder
from modules.schema import ConfigError
from modules.weights import load_network, read_header, read_tensors, save_network
from tests.integration.launching import run_ranks
from tests.integration.recipe_cases import IMAGE, RANDOM_COMPRESSOR, STAGE_C, TEXT_ENCODER, pictures
from tests.integration.saved import saved_tensors
from train.config import Config, config_from_plain
from train.loop import run
from train.networks import network_dtype
from train.recipes import make_recipe
from train.recipes.ip_adapter import IPAdapterRecipe
from train.rng import step_rng

STEPS, HALF, GLOBAL_BATCH = 4, 2, 4
POOLED = {"c_image": 16, "image_proj": {"name": "pooled", "num_tokens": 2}}
PLUS = POOLED | {"image_proj": {"name": "resampler", "num_tokens": 3, "depth": 1, "nhead": 2}}
GDF = {
    "schedule": {"name": "CosineSchedule"},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "X0Target"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "ConstantLossWeight"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stage C on disk whose output depends on its conditions, with dropout when it is in train mode."""
    torch.manual_seed(0)
    network = modules.build("stage_c", STAGE_C | {"dropout": 0.5})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp("base") / "stage_c.safetensors"
    save_network(path, network, "stage_c", {})
    return path


def settings(folder: Path, shards: Path, base: Path, adapter: dict[str, Any] = PLUS, **run: Any) -> dict:
    return {
        "name": "test",
        "run": {
            "dir": str(folder), "num_steps": STEPS, "log_every": 1, "save_every": HALF, "keep_every": HALF,
            "sample_every": HALF, "num_samples": 2, "device": "cpu", "ema": {"decay": 0.5}, **run,
        },
        "recipe": {
            "name": "ip_adapter",
            "base": {"name": "stage_c", "caption_dropout": 0.3, "image_kept": 0.0, "sampling": {"steps": 2}},
            "image_dropout": 0.3,
        },
        "model": {
            "semantic_compressor": RANDOM_COMPRESSOR,
            "text_encoder": TEXT_ENCODER,
            "image_encoder": {"config": IMAGE},
            "stage_c": {"weights": str(base)},
            "ip_adapter": {"config": adapter},
        },
        "gdf": GDF,
        "data": {
            "shards": str(shards), "image_size_px": 32, "multiple_px": 32, "aspect_ratios": ["1/1"],
            "batch_size": GLOBAL_BATCH, "num_workers": 0, "split": "samples",
        },
        "optim": {"lr": 1e-2},
    }  # fmt: skip


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def made(plain: dict[str, Any]) -> IPAdapterRecipe:
    torch.manual_seed(0)
    recipe = make_recipe(config_from_plain(plain))
    recipe.build(torch.device("cpu"))
    assert isinstance(recipe, IPAdapterRecipe)
    return recipe


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: Path, base: Path) -> Path:
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(config_from_plain(settings(folder, shards, base)))
    return folder


def test_only_the_adapter_is_saved_and_says_what_it_belongs_to(whole: Path, base: Path) -> None:
    assert sorted(path.stem for path in (whole / "weights").iterdir()) == ["ip_adapter", "ip_adapter_ema"]
    header = read_header(whole / "weights" / "ip_adapter.safetensors")
    assert header["config"] == {"channels": [16, 16], "c_tokens": 16, **PLUS}
    assert header["image_encoder"] == "image_encoder"
    assert header["base"]["network"] == "stage_c" and header["base"]["weights"] == str(base)
    assert header["base"]["fingerprint"]
    before = saved_tensors(whole / "checkpoints" / f"step_{HALF:08d}", "weights/ip_adapter/")
    after = read_tensors(whole / "weights" / "ip_adapter.safetensors")
    assert all(not torch.equal(before[key], after[key]) for key in after)


def test_a_saved_adapter_reloads_and_gives_the_recipes_predictions(
    whole: Path, shards, base, tmp_path
) -> None:
    """The encoder beside the run, the base's own file, and the adapter's file are all that it takes."""
    plain = settings(tmp_path, shards, base)
    plain["model"]["ip_adapter"] = {"weights": str(whole)}
    recipe, images = made(plain), pictures(2)
    expected = recipe.base.extra(images, step_rng(0, 0, 0, 2), False)
    adapter = load_network(whole, "ip_adapter").eval()
    encoder = ImageEncoder(source=str(whole / "image_encoder"))
    with torch.no_grad():
        seen = encoder.features(images["images"].float() / 255, adapter.reads)
        assert torch.equal(adapter(seen), expected.conditional["image_tokens"])
        assert torch.equal(adapter(torch.zeros_like(seen)), expected.unconditional["image_tokens"])
    stage_c = load_network(base, "stage_c").eval()
    adapter.attach(stage_c)
    outputs = [predict(network, adapter(seen)) for network in (stage_c, recipe.base.network)]
    assert torch.equal(*outputs)
    adapter.detach()
    assert not torch.allclose(predict(stage_c, adapter(seen)), outputs[0], atol=1e-4)


@torch.no_grad()
def predict(stage_c: torch.nn.Module, image_tokens: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    x, text, pooled = (torch.randn(2, *s, generator=generator) for s in ((4, 8, 8), (8, 16), (1, 16)))
    return stage_c(x, torch.tensor([0.3, 0.8]), text, pooled, pooled * 0, image_tokens=image_tokens)


def test_a_resumed_run_equals_the_uninterrupted_one(whole: Path, shards, base, tmp_path) -> None:
    plain = settings(tmp_path / "run", shards, base)
    recipe = make_recipe(config_from_plain(plain))
    interrupt_after(1, config_from_plain(plain), recipe)
    run(config_from_plain(plain))
    last = f"checkpoints/step_{STEPS:08d}"
    expected, found = saved_tensors(whole / last), saved_tensors(tmp_path / "run" / last)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert any(name.startswith("optimizer/") for name in found)
    assert [row["loss"] for row in rows(tmp_path / "run")] == [row["loss"] for row in rows(whole)]


def interrupt_after(step: int, config: Config, recipe: Any) -> None:
    after_step = recipe.after_step

    def then_stop(done: int) -> None:
        after_step(done)
        if done + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe.after_step = then_stop
    assert run(config, recipe).step == step


def test_two_processes_under_fsdp_give_the_loss_curve_of_one(whole: Path, shards, base, tmp_path) -> None:
    plain = settings(tmp_path / "run", shards, base)
    plain["data"]["batch_size"] = GLOBAL_BATCH // 2
    plain["parallel"] = {"mode": "fsdp", "shard_frozen": True}
    (tmp_path / "configs.json").write_text(json.dumps([plain]))
    run_ranks("train_worker", tmp_path / "configs.json")
    for expected, found in zip(rows(whole), rows(tmp_path / "run"), strict=True):
        for name in ("loss", "gradient_norm"):
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-3), name
    for path in (whole / "weights").iterdir():
        expected, found = read_tensors(path), read_tensors(tmp_path / "run" / "weights" / path.name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=2e-4, msg=f"{path.name} {key}")
    plain["data"]["batch_size"] = GLOBAL_BATCH
    (tmp_path / "run" / "checkpoints" / "latest").write_text(f"step_{HALF:08d}")
    run(config_from_plain(plain | {"parallel": {"mode": "ddp"}}))  # one process goes on from the two's
    assert [float(row["loss"]) for row in rows(tmp_path / "run")] == pytest.approx(
        [float(row["loss"]) for row in rows(whole)], rel=1e-3
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_base_stays_as_it_is_in_eval_mode_while_the_adapter_learns(
    precision, shards, base, tmp_path
) -> None:
    recipe = made(settings(tmp_path, shards, base, precision=precision))
    network, batch = recipe.base.network, pictures(4)
    learning = {name for name, p in recipe.trainable()["model"].named_parameters() if p.requires_grad}
    assert learning and all("ip_" in name or "image_" in name for name in learning)
    frozen = {key: value.clone() for key, value in network.state_dict().items() if "_ip." not in key}
    assert {value.dtype for value in frozen.values()} == {network_dtype(precision)}
    optimizer = torch.optim.AdamW(recipe.ip_adapter.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = recipe.loss("model", batch, step_rng(0, 0, 0, 4))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    recipe.after_step(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        rows = recipe.sample(batch, step_rng(0, 0, 0, 4))
    assert losses[-1] < 0.9 * losses[0]
    assert "sampled" in rows and recipe.ip_adapter.training
    assert not any(m.training for name, m in network.named_modules() if "image_attention" not in name)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in frozen.items())


def test_pictures_are_dropped_with_the_given_probability(shards, base, tmp_path) -> None:
    plain = settings(tmp_path, shards, base)
    plain["recipe"]["image_dropout"] = 0.25
    recipe, batch = made(plain), pictures(8)
    for parameter in recipe.ip_adapter.image_proj.parameters():
        torch.nn.init.normal_(parameter)
    nothing = recipe.ip_adapter(torch.zeros(1, 5, 16))
    dropped = 0
    for step in range(40):
        tokens = recipe.base.extra(batch, step_rng(0, step, 0, 8), True).conditional["image_tokens"]
        dropped += int((tokens - nothing).abs().amax((1, 2)).lt(1e-6).sum())
    assert 50 < dropped < 110  # 80 of 320 are expected, with a deviation of 8
    whole = recipe.base.extra(batch, step_rng(0, 0, 0, 8), False).conditional["image_tokens"]
    assert (whole - nothing).abs().amax((1, 2)).min() > 1e-3


def test_settings_that_cannot_work_are_named(shards, base, tmp_path) -> None:
    plain = settings(tmp_path, shards, base)
    without = {name: entry for name, entry in plain["model"].items() if name != "image_encoder"}
    with pytest.raises(ConfigError, match="model.image_encoder: missing"):
        make_recipe(config_from_plain(plain | {"model": without}))
    plain["model"]["ip_adapter"]["config"] = POOLED | {"image_proj": {"name": "pool"}}
    with pytest.raises(ConfigError, match="model.ip_adapter.config: image_proj.name: 'pool' is not known"):
        make_recipe(config_from_plain(plain))
    plain["recipe"]["image_dropout"] = 2.0
    with pytest.raises(ConfigError, match="recipe.image_dropout"):
        make_recipe(config_from_plain(plain))


@pytest.mark.parametrize(("adapter", "reads"), [(POOLED, "pooled"), (PLUS, "patches")])
def test_features_of_another_width_are_told_before_training(shards, base, tmp_path, adapter, reads) -> None:
    plain = settings(tmp_path, shards, base, adapter | {"c_image": 24})
    with pytest.raises(ConfigError, match=f"c_image: expected 16, the width of the {reads} .*, found 24"):
        made(plain)


def test_the_base_is_described_as_it_was_read(shards, base, tmp_path) -> None:
    moved = shutil.copytree(base, tmp_path / "base") if base.is_dir() else Path(shutil.copy(base, tmp_path))
    recipe = made(settings(tmp_path / "run", shards, moved))
    told = recipe.facts("ip_adapter")["base"]
    moved.rename(tmp_path / "elsewhere")
    assert recipe.facts("ip_adapter")["base"] == told and told["fingerprint"]
