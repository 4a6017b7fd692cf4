"""Training on precomputed latents is training on the pictures that they were made from."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset_tools.batches import make_batch
from dataset_tools.fetch import ShardReader
from dataset_tools.sample_refs import SampleRef, ShardIndexer
from dataset_tools.stream import Stream
from modules.schema import ConfigError
from tests.integration.latents_cases import SEED, Made, losses, opened
from train.config import config_from_plain
from train.loop import run
from train.rng import step_rng

NAMES = ("stage_c", "stage_b_frozen_compressor")
STEPS = 10  # within the two epochs that are kept


@pytest.mark.parametrize(
    ("options", "error"),
    [(("--dtype", "fp32"), 1e-6), (("--dtype", "bf16"), 2e-3), (("--compress", "--batch-size", "3"), 2e-3)],
)
@pytest.mark.parametrize("name", NAMES)
def test_losses_equal_those_on_pictures(made: Made, name: str, options: tuple, error: float) -> None:
    expected, keys = losses(made.settings(name), STEPS)
    found, again = losses(made.settings(name, made.latents(name, *options)), STEPS)
    assert keys == again
    assert found == pytest.approx(expected, rel=error)
    assert len(set(found)) == STEPS


def test_nothing_that_was_precomputed_is_loaded_and_sheets_are_drawn(made: Made) -> None:
    for name in NAMES:
        recipe, stream = opened(config_from_plain(made.settings(name, made.latents(name))))
        assert recipe.semantic_compressor is None and not recipe.encoders.encoders
        batch = next(iter(stream))
        assert "images" not in batch and ("stage_a_latents" in batch) == (name != "stage_c")
        rows = recipe.sample(batch, step_rng(0, 0, 0, 4))
        assert list(rows) == ["latents", "noised", "predicted", "sampled"]
        assert all(row.shape[:2] == (4, 3) and row.isfinite().all() for row in rows.values())


def test_without_sheets_nothing_that_only_draws_them_is_loaded(made: Made) -> None:
    for name in NAMES:
        plain = made.settings(name, made.latents(name))
        recipe, _ = opened(config_from_plain({**plain, "run": {**plain["run"], "sample_every": 0}}))
        assert not recipe.helpers()


def test_random_encoders_are_exported_all_the_same(made: Made, tmp_path: Path) -> None:
    recipe, _ = opened(config_from_plain(made.settings("stage_c", made.latents("stage_c"))))
    recipe.export(tmp_path)
    assert (tmp_path / "text_encoder" / "config.json").exists() and (tmp_path / "image_encoder").is_dir()


def test_after_the_last_version_the_first_comes_again(made: Made) -> None:
    folder = made.latents("stage_c")
    config = config_from_plain(made.settings("stage_c", folder)).data
    stream = Stream(config, seed=SEED + 1)  # whose order is another, but not what was seen of pictures
    assert stream.latents is not None
    indexer = ShardIndexer(config, stream.seed, ShardReader(), pytest.fail, stream.latents)
    first, second, third = (indexer.refs(str(folder / "000000.tar"), epoch) for epoch in range(3))
    assert [ref.bucket for ref in first] == [ref.bucket for ref in third] != [ref.bucket for ref in second]
    assert [ref.caption for ref in first] != [ref.caption for ref in third]

    def latents(ref: SampleRef) -> torch.Tensor:
        batch = make_batch([ref], range(1), config, 0, indexer.reader, pytest.fail, None, stream.latents)
        assert batch is not None
        return batch["latents"]

    read = [[latents(ref) for ref in refs] for refs in (first, second, third)]
    assert all(map(torch.equal, read[0], read[2])) and not all(map(torch.equal, read[0], read[1]))


def wrapped(made: Made, recipe: str, shards: Path | None) -> dict[str, Any]:
    """The settings of a recipe around Stage C."""
    settings = made.settings("stage_c", shards)
    settings["recipe"] = {"name": recipe, "base": settings["recipe"]}
    settings["model"]["stage_c"] = {**settings["model"]["stage_c"], "allow_random": True}
    if recipe == "lcm":
        settings["recipe"]["base"]["sampling"] = {"steps": 2, "shift": 2.0}
    if recipe == "ip_adapter":
        settings["model"]["ip_adapter"] = {"config": {"c_image": 16, "image_proj": {"name": "pooled"}}}
    return settings


@pytest.mark.parametrize("recipe", ["lora", "lcm", "ip_adapter"])
def test_recipes_that_wrap_learn_from_latents(made: Made, recipe: str) -> None:
    expected, _ = losses(wrapped(made, recipe, None), 2)
    found, _ = losses(wrapped(made, recipe, made.latents("stage_c", "--dtype", "fp32")), 2)
    assert found == pytest.approx(expected, rel=1e-5)


def test_tokens_that_learn_keep_the_text_encoder(made: Made) -> None:
    settings = wrapped(made, "lora", made.latents("stage_c"))
    settings["recipe"]["tokens"] = {"[me]": "red"}
    recipe, stream = opened(config_from_plain(settings))
    assert list(recipe.base.encoders.encoders) == ["text_encoder"]
    assert "text_tokens" not in next(iter(stream))


@pytest.mark.parametrize("recipe", ["controlnet", "ip_adapter"])
def test_recipes_that_wrap_refuse_latents_where_they_need_pixels(made: Made, recipe: str) -> None:
    settings = wrapped(made, recipe, made.latents("stage_c"))
    if recipe == "controlnet":
        settings["data"]["control"] = {"name": "canny", "size_px": 32}
        message = "data.control: control pictures are made of pixels"
    else:
        settings["model"]["ip_adapter"]["config"]["image_proj"]["name"] = "patches"
        message = "image_proj.name: expected pooled with the latents in .*, found patches"
    with pytest.raises(ConfigError, match=message):
        opened(config_from_plain(settings))


def refusal(made: Made, name: str, latents: Path, change: dict[str, Any]) -> str:
    settings = made.settings(name, latents)
    for group, entries in change.items():
        settings[group] = {**settings[group], **entries}
    with pytest.raises((ConfigError, ValueError)) as caught:
        opened(config_from_plain(settings))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stage_a", {}, "data.shards: .* stage_a learns from pixels"),
        ("previewer", {}, "data.shards: .* previewer learns from pixels"),
        ("stage_c", {"data": {"crop": "center"}}, "data.crop: expected 'random'.*found 'center'"),
        ("stage_c", {"data": {"image_size_px": 64}}, "data.image_size_px: expected 32.*found 64"),
        ("stage_c", {"data": {"aspect_ratios": ["1/1"]}}, "data.aspect_ratios: expected"),
        ("stage_c", {"data": {"caption": "short"}}, "data.caption: expected a field .*txt, long.*'short'"),
        ("stage_c", {"recipe": {"compressor_scale": 0.5}}, "recipe.compressor_scale: expected 1,.*found 0.5"),
        (
            "stage_c",
            {"model": {"semantic_compressor": {"weights": "STAGE_A"}}},
            "model.semantic_compressor: ",
        ),
        ("stage_b_frozen_compressor", {}, "hold nothing of model.stage_a"),
        ("stage_b_frozen_compressor", {"recipe": {"random_scale": [0.5, 1.0]}}, "recipe.random_scale"),
    ],
)
def test_latents_that_do_not_fit_are_refused_in_a_line(
    made: Made, name: str, change: dict[str, Any], message: str
) -> None:
    if "model" in change:
        change = {"model": {"semantic_compressor": {"weights": made.files["stage_a"]}}}
    if name == "stage_b_frozen_compressor":
        change = {**change, "recipe": {"compressor_scale": 1.0, **change.get("recipe", {})}}
    found = refusal(made, name, made.latents("stage_c"), change)
    assert re.search(message, found) and "\n" not in found


def test_pictures_and_latents_do_not_mix(made: Made) -> None:
    shards = [str(made.shards), str(made.latents("stage_c"))]
    with pytest.raises(ConfigError, match="holds precomputed latents, .*pictures does not"):
        Stream(config_from_plain(made.settings("stage_c", data={}) | {"data": {"shards": shards}}).data)


def test_a_whole_run_reads_latents_draws_sheets_and_goes_on(made: Made, tmp_path: Path) -> None:
    settings = made.settings("stage_c", made.latents("stage_c"), num_workers=2)
    settings["run"] |= {"dir": str(tmp_path / "run"), "num_steps": 2, "sample_every": 2, "device": "cpu"}
    first = run(config_from_plain(settings))
    settings["run"]["num_steps"] = 4
    second = run(config_from_plain(settings))
    assert (first.step, second.step) == (2, 4) and second.loss > 0
    assert (tmp_path / "run" / "samples" / "step_00000004.png").exists()
    assert (tmp_path / "run" / "weights" / "stage_c.safetensors").exists()
