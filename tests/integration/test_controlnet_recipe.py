"""ControlNet training: it learns, the base does not; it resumes; two processes train as one; files agree."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dataset_tools.batches import Batch
from modules import SemanticCompressor
from modules.adapters.filters import build_filter
from modules.schema import ConfigError
from modules.weights import load_network, read_header, save_network
from tests.integration.launching import run_ranks
from tests.integration.recipe_cases import COMPRESSOR, RECIPES, STAGE_C, pictures
from train.config import config_from_plain
from train.loop import run
from train.recipes import make_recipe
from train.recipes.controlnet import ControlNetRecipe
from train.rng import seed_global, step_rng

BACKBONE = {"stages": [["fused", 1, 3, 1, 8, 8, 1], ["fused", 2, 3, 2, 8, 16, 1]], "c_last": 16}
CONTROLNET = {"c_in": 1, "c_proj": 16, "proj_blocks": [0, 3], "backbone": BACKBONE, "stochastic_depth": 0.5}
BASE = RECIPES["stage_c"]
STEPS, HALF = 4, 2


@pytest.fixture(scope="module")
def plain(stage_c: Path, shards: Path) -> dict[str, Any]:
    """The settings of a run of a few steps."""
    model = {key: entry for key, entry in BASE["model"].items() if key != "image_encoder"}
    return {
        "name": "test",
        "recipe": {"name": "controlnet", "base": {"name": "stage_c", "sampling": {"steps": 2}}},
        "model": {
            **model,
            "stage_c": {"weights": str(stage_c)},
            "controlnet": {"config": CONTROLNET},
        },
        "gdf": BASE["gdf"],
        "data": {
            "shards": str(shards),
            "image_size_px": 32,
            "aspect_ratios": ["1/1"],
            "batch_size": 4,
            "num_workers": 0,
            "split": "samples",
            "control": {"name": "canny", "low": 20, "high": 40},
        },
        "optim": {"lr": 1e-3},
        "run": {
            "dir": "unused",
            "num_steps": STEPS,
            "log_every": 1,
            "save_every": HALF,
            "keep_every": HALF,
            "sample_every": STEPS,
            "num_samples": 2,
            "device": "cpu",
            "ema": {"decay": 0.5},
        },
    }


def changed(plain: dict[str, Any], **changes: dict[str, Any]) -> dict[str, Any]:
    return plain | {group: plain.get(group, {}) | entries for group, entries in changes.items()}


def made(plain: dict[str, Any]) -> ControlNetRecipe:
    """The recipe, built, with maps that are not 0 as a fresh ControlNet's are."""
    torch.manual_seed(0)
    recipe = make_recipe(config_from_plain(plain))
    assert isinstance(recipe, ControlNetRecipe)
    recipe.build(torch.device("cpu"))
    for project in recipe.controlnet.projections:
        torch.nn.init.normal_(project.get_parameter("2.weight"), std=0.1)
    recipe.controlnet.train()
    return recipe


def loss(recipe: ControlNetRecipe, batch: Batch, step: int = 0) -> Tensor:
    seed_global(0, step, 0, 0)
    return recipe.loss("model", batch, step_rng(0, step, 0, len(batch["captions"])))[0]


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_the_loss_of_a_batch_learnt_by_heart_falls_and_the_base_stays(plain, stage_c) -> None:
    recipe, batch = made(changed(plain, gdf={"loss_weight": {"name": "ConstantLossWeight"}})), pictures(4)
    optimizer = torch.optim.AdamW(recipe.trainable()["model"].parameters(), 3e-3)
    found = []
    for _ in range(40):
        value = loss(recipe, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        recipe.after_step(0)
        found.append(value.item())
    assert found[-1] < 0.7 * found[0]
    base = recipe.base.network
    assert not any(part.training for part in base.modules())
    assert not any(p.requires_grad or p.grad is not None for p in base.parameters())
    torch.testing.assert_close(
        base.state_dict(), load_network(stage_c, "stage_c").state_dict(), rtol=0, atol=0
    )


def test_a_fresh_controlnet_changes_nothing(plain) -> None:
    """Its training begins where the base stands (Zhang et al. 2023, section 3.1: zero convolutions)."""
    recipe = made(plain)
    steered = loss(recipe, pictures(4)).item()
    for project in recipe.controlnet.projections:
        torch.nn.init.zeros_(project.get_parameter("2.weight"))
    fresh = loss(recipe, pictures(4)).item()
    recipe.base.extra = lambda batch, rng, learning: type(recipe._extra(batch, rng, learning))({}, {})
    assert fresh == loss(recipe, pictures(4)).item() != steered


def test_control_pictures_of_the_workers_are_those_that_the_recipe_would_make(plain) -> None:
    recipe, batch = made(plain), pictures(4)
    edges = build_filter(plain["data"]["control"])(batch["images"].float() / 255, [])
    assert 0 < edges.mean() < 1
    ready: Batch = {**batch, "control": (edges * 255).byte()}
    assert loss(recipe, ready).item() == loss(recipe, batch).item()
    blank: Batch = {**batch, "control": torch.zeros_like(edges).byte()}
    assert loss(recipe, blank).item() != loss(recipe, batch).item()


def test_a_share_of_the_control_pictures_is_blank(plain) -> None:
    batch = pictures(4)
    blank: Batch = {**batch, "control": torch.zeros(4, 1, 32, 32, dtype=torch.uint8)}
    for share in (0.0, 1.0):
        recipe = made(changed(plain, recipe={"control_dropout": share}))
        same = loss(recipe, batch).item() == loss(recipe, blank).item()
        assert same == (share == 1.0)


def test_the_sheet_shows_the_control_and_both_halves_of_guidance_see_it(plain) -> None:
    recipe = made(plain)
    sheet = recipe.sample(pictures(3), step_rng(0, 0, 0, 3))
    assert list(sheet) == ["original", "control", "noised", "predicted", "sampled"]
    assert sheet["control"].shape == (3, 3, 32, 32) and recipe.controlnet.training
    extra = recipe._extra(pictures(3), step_rng(0, 0, 0, 3), False)
    assert extra.conditional["cnet"] is extra.unconditional["cnet"]
    assert [block for block, maps in enumerate(extra.conditional["cnet"]) if maps is not None] == [0, 3]


@pytest.mark.parametrize(
    ("control", "network"),
    [
        ({"name": "inpainting"}, {"c_in": 4}),
        ({"name": "super_resolution"}, {"c_in": 4, "bottleneck_mode": "simple"}),  # of 4 latent channels
    ],
)
def test_other_filters_train_and_show_what_they_make(plain, control, network) -> None:
    config = {"controlnet": {"config": CONTROLNET | network}}
    recipe = made(changed(plain, data={"control": control}, model=config))
    loss(recipe, pictures(2)).backward()
    assert all(p.grad is not None for p in recipe.controlnet.parameters())
    shown = recipe.sample(pictures(2), step_rng(0, 0, 0, 2))["control"]
    assert shown.shape[:2] == (2, 3) and shown.min() >= 0 and shown.max() <= 1


def test_in_bf16_the_frozen_base_is_held_in_bf16_and_the_loss_stays_close(plain) -> None:
    whole = loss(made(plain), pictures(4)).item()
    recipe = made(changed(plain, run={"precision": "bf16"}))
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(recipe, pictures(4)).item() == pytest.approx(whole, rel=0.05)
    assert {p.dtype for p in recipe.base.network.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in recipe.controlnet.parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def whole(plain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one process."""
    folder = tmp_path_factory.mktemp("controlnet") / "one"
    run(config_from_plain(changed(plain, run={"dir": str(folder)})))
    return folder


def test_a_resumed_run_equals_the_uninterrupted_one(plain, whole, tmp_path) -> None:
    settings = changed(plain, run={"dir": str(tmp_path / "parts"), "num_steps": HALF})
    run(config_from_plain(settings))
    run(config_from_plain(changed(settings, run={"num_steps": STEPS})))
    assert losses(tmp_path / "parts") == losses(whole)
    for name in ("controlnet", "controlnet_ema"):
        found, expected = (
            load_network(folder / "weights" / f"{name}.safetensors", "controlnet").state_dict()
            for folder in (tmp_path / "parts", whole)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_written_file_says_what_a_reader_needs_and_gives_the_same_maps(plain, whole, stage_c) -> None:
    assert sorted(path.name for path in (whole / "weights").iterdir()) == [
        "controlnet.safetensors",
        "controlnet_ema.safetensors",
    ]
    header = read_header(whole / "weights" / "controlnet.safetensors")
    assert header["filter"] == plain["data"]["control"]
    assert header["base"]["network"] == "stage_c" and header["base"]["weights"] == str(stage_c)
    assert header["control_px_per_latent"] == 4.0
    recipe = make_recipe(config_from_plain(changed(plain, model={"controlnet": {"weights": str(whole)}})))
    recipe.build(torch.device("cpu"))
    loaded, control = load_network(whole, "controlnet").eval(), torch.rand(2, 1, 32, 32)
    ours = recipe.networks()["controlnet"].eval()(control)
    for expected, found in zip(ours, loaded(control), strict=True):
        assert (expected is None and found is None) or torch.equal(expected, found)
    assert any(maps is not None and maps.abs().max() > 0 for maps in ours)


@pytest.fixture(scope="module")
def two(plain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of two processes, the blocks of base and ControlNet sharded, and recomputed or not."""
    folder = tmp_path_factory.mktemp("two")
    runs = [
        changed(
            plain,
            run={"dir": str(folder / name)},
            data={"batch_size": 2},
            parallel={"mode": "fsdp", "activation_checkpointing": name == "recomputed"},
        )
        for name in ("kept", "recomputed")
    ]
    (folder / "configs.json").write_text(json.dumps(runs))
    run_ranks("train_worker", folder / "configs.json")
    return folder


@pytest.mark.parametrize("activations", ["kept", "recomputed"])
def test_two_processes_under_fsdp_train_as_one(two, whole, activations) -> None:
    assert losses(two / activations) == pytest.approx(losses(whole), rel=1e-3)
    paths = (two / activations, whole)
    found, expected = (load_network(path, "controlnet").state_dict() for path in paths)
    for key, value in expected.items():
        assert (value.float() - found[key].float()).abs().mean() < 2e-3, key


def test_an_effnet_controlnet_may_begin_with_the_backbone_of_a_compressor(plain, tmp_path) -> None:
    compressor = SemanticCompressor(c_latent=4, backbone=BACKBONE, stochastic_depth=0.0)
    path = tmp_path / "compressor.safetensors"
    save_network(path, compressor, "semantic_compressor", {})
    config = {"weights": str(path), "config": CONTROLNET}
    recipe = made(changed(plain, model={"controlnet": config}))
    expected, found = compressor.backbone.state_dict(), recipe.controlnet.backbone.state_dict()
    for key in expected.keys() - {"0.0.weight"}:
        assert torch.equal(expected[key], found[key]), key
    assert recipe.controlnet.training
    save_network(path, SemanticCompressor(**COMPRESSOR), "semantic_compressor", {})
    with pytest.raises(ConfigError, match=r"model\.controlnet\.weights: .*backbone is not this"):
        made(changed(plain, model={"controlnet": config}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"control": None}}, r"data\.control: missing; name a filter"),
        ({"data": {"control": {"name": "cany"}}}, r"data\.control\.name: found 'cany'.*canny"),
        ({"data": {"control": {"name": "inpainting"}}}, r"controlnet\.config\.c_in: expected 4, .*found 1"),
        ({"recipe": {"base": {"name": "stage_b"}}}, r"recipe\.base\.name: expected stage_c"),
        (
            {"recipe": {"name": "lora"}},
            r"data\.control: read by the recipe controlnet alone, found recipe lora",
        ),
        ({"recipe": {"control_droput": 0.1}}, r"recipe\.control_droput: .*'control_dropout'"),
        ({"model": {"controlnet": {"config": CONTROLNET | {"c_proj": 8}}}}, r"config\.c_proj: expected 16"),
        (
            {"model": {"controlnet": {"config": CONTROLNET | {"proj_blocks": [0, 4]}}}},
            r"proj_blocks: expected numbers below 4.*found 4",
        ),
        ({"model": {"stage_c": {"config": STAGE_C}}}, r"model\.stage_c\.weights: missing"),
    ],
)
def test_mistakes_are_named_in_one_line(plain, changes, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        made(changed(plain, **changes))
    assert "\n" not in str(error.value)
