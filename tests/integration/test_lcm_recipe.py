"""The LCM recipe in real runs: alone, stopped and resumed, under FSDP; its teacher stays as it is."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modules
from inference import Cascade, StageSettings
from modules.schema import ConfigError
from modules.weights import find_weights, load_network, read_header, save_network
from tests.integration.launching import run_ranks
from tests.integration.recipe_cases import (
    GDF,
    RECIPES,
    STAGE_A,
    STAGE_B,
    STAGE_C,
    part,
    pictures,
)
from tests.integration.saved import saved_tensors
from train.config import config_from_plain
from train.loop import run
from train.recipes import make_recipe
from train.recipes.lcm import LCMRecipe
from train.rng import step_rng

STEPS, HALF, GLOBAL_BATCH = 4, 2, 4
BASES = {"stage_c": "stage_c", "stage_b": "stage_b_frozen_compressor"}
SAMPLING = {"steps": 2, "guidance": 1.0, "shift": 2.0, "sampler": "lcm", "rescale": 0.0}
TEACHER = {"steps": 4, "guidance": 3.0, "shift": 2.0, "sampler": "ddim", "rescale": 0.7}

Settings = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: a Stage C and a Stage B whose outputs depend on their conditions."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, config in (("stage_c", STAGE_C), ("stage_b", STAGE_B)):
        torch.manual_seed(0)
        network = modules.build(name, config | {"dropout": 0.5})
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        (folder / name / "weights").mkdir(parents=True)
        save_network(folder / name / "weights" / f"{name}.safetensors", network, name, {})
    return folder


@pytest.fixture(scope="module")
def settings(shards: Path, teachers: Path) -> Settings:
    def make(folder: Path, name: str = "stage_c", **recipe: Any) -> dict[str, Any]:
        case = RECIPES[BASES[name]]
        base = case["recipe"] | {"sampling": SAMPLING}
        network = {"weights": str(teachers / name), "config": {"dropout": 0.0}}
        return {
            "name": "test",
            "run": {
                "dir": str(folder), "num_steps": STEPS, "log_every": 1, "save_every": HALF,
                "keep_every": HALF, "sample_every": HALF, "num_samples": 2, "device": "cpu",
                "ema": {"decay": 0.5},
            },
            "recipe": {"name": "lcm", "base": base, "teacher": TEACHER, "num_times": 8, **recipe},
            "model": case["model"] | {name: network},
            "gdf": GDF,
            "data": {
                "shards": str(shards), "image_size_px": 32, "multiple_px": 32, "aspect_ratios": ["1/1"],
                "batch_size": GLOBAL_BATCH, "num_workers": 0, "split": "samples",
            },
            "optim": {"lr": 1e-3},
        }  # fmt: skip

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Path:
    """A folder with uninterrupted runs, one for each base."""
    folder = tmp_path_factory.mktemp("whole")
    for name in BASES:
        run(config_from_plain(settings(folder / name, name)))
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def made(plain: dict[str, Any]) -> LCMRecipe:
    torch.manual_seed(0)
    recipe = make_recipe(config_from_plain(plain))
    recipe.build(torch.device("cpu"))
    assert isinstance(recipe, LCMRecipe)
    recipe.base.network.train()
    return recipe


@pytest.mark.parametrize("name", BASES)
def test_the_student_is_a_network_like_its_teacher_that_says_how_it_was_taught(
    name: str, whole: Path, teachers: Path
) -> None:
    assert {path.stem for path in (whole / name / "weights").iterdir()} == {name, f"{name}_ema"}
    header = read_header(find_weights(whole / name, name))
    assert header["network"] == name
    assert header["sampling"] == SAMPLING
    assert header["distilled"] == {"teacher": TEACHER, "num_times": 8}
    assert header["base"]["network"] == name and header["base"]["weights"] == str(teachers / name)
    assert header["base"]["fingerprint"]
    student, teacher = (load_network(folder / name, name).state_dict() for folder in (whole, teachers))
    assert any(not torch.equal(student[key], teacher[key]) for key in teacher)


@pytest.mark.parametrize("name", BASES)
def test_the_teacher_stays_as_it_is_and_the_student_begins_as_it(
    name: str, settings: Settings, tmp_path: Path, teachers: Path
) -> None:
    plain = settings(tmp_path, name)
    del plain["model"][name]["config"]  # with dropout
    recipe, saved = made(plain), load_network(teachers / name, name).state_dict()
    torch.testing.assert_close(recipe.base.network.state_dict(), saved, rtol=0, atol=0)
    optimizer = torch.optim.AdamW(recipe.base.network.parameters(), 1e-2)
    for step in range(2):
        recipe.loss("model", pictures(4), step_rng(0, step, 0, 4))[0].backward()
        optimizer.step()
        recipe.after_step(step)
    recipe.sample(pictures(2), step_rng(0, 0, 0, 2))
    torch.testing.assert_close(recipe.teacher.state_dict(), saved, rtol=0, atol=0)
    assert not any(module.training for module in recipe.teacher.modules())
    assert not any(parameter.requires_grad for parameter in recipe.teacher.parameters())
    assert all(module.training for module in recipe.base.network.modules())
    changed = recipe.base.network.state_dict()
    assert all(not torch.equal(changed[key], saved[key]) for key in saved if key.endswith("weight"))


@pytest.mark.parametrize("name", BASES)
def test_one_batch_of_eight_equals_four_of_two(name: str, settings: Settings, tmp_path: Path) -> None:
    gradients = []
    for count in (8, 2):
        recipe = made(settings(tmp_path, name))
        for first in range(0, 8, count):
            rng = step_rng(0, 0, first, count)
            (recipe.loss("model", part(pictures(8), first, count), rng)[0] * count / 8).backward()
        gradients.append([p.grad for p in recipe.base.network.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


def test_bf16_keeps_losses_close(settings: Settings, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        plain = settings(tmp_path)
        plain["run"]["precision"] = precision
        recipe = made(plain)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = recipe.loss("model", pictures(8), step_rng(0, 0, 0, 8))
        loss.backward()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert next(recipe.teacher.parameters()).dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in recipe.base.network.parameters())


def test_a_resumed_run_equals_the_uninterrupted_one(whole: Path, settings: Settings, tmp_path: Path) -> None:
    plain = settings(tmp_path / "run")
    interrupt_after(1, plain)
    assert not (tmp_path / "run" / "checkpoints" / f"step_{STEPS:08d}").exists()
    run(config_from_plain(plain))
    last = Path("checkpoints") / f"step_{STEPS:08d}"
    expected, found = (
        saved_tensors(run_folder / last) for run_folder in (whole / "stage_c", tmp_path / "run")
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    expected, found = (
        [row["loss"] for row in rows(folder)] for folder in (whole / "stage_c", tmp_path / "run")
    )
    assert found == expected


def interrupt_after(step: int, plain: dict[str, Any]) -> None:
    """Run, and be asked to end after that step (counted from 0)."""
    recipe = make_recipe(config_from_plain(plain))
    original = recipe.after_step

    def after_step(done: int) -> None:
        original(done)
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe.after_step = after_step  # type: ignore[method-assign]
    run(config_from_plain(plain), recipe)


def test_two_processes_with_fsdp_give_the_loss_curve_of_one(
    whole: Path, settings: Settings, tmp_path: Path
) -> None:
    plain = [settings(tmp_path / name, name) for name in BASES]
    for each in plain:
        each["parallel"] = {"mode": "fsdp", "activation_checkpointing": True}
        each["data"]["batch_size"] = GLOBAL_BATCH // 2
    (tmp_path / "configs.json").write_text(json.dumps(plain))
    run_ranks("train_worker", tmp_path / "configs.json")
    for name in BASES:
        alone, together = rows(whole / name), rows(tmp_path / name)
        assert len(alone) == len(together) == STEPS
        for expected, found in zip(alone, together, strict=True):
            for key in ("loss", "distance", "gradient_norm"):
                assert float(found[key]) == pytest.approx(float(expected[key]), rel=2e-3), (name, key)


def test_beside_its_teacher_a_student_is_drawn_with_when_asked_for(
    whole: Path, teachers: Path, tmp_path: Path
) -> None:
    """A folder of runs stands for the run with the network's name; inference samples a student as taught."""
    for name in BASES:
        (tmp_path / name).symlink_to(teachers / name)
        (tmp_path / f"lcm_{name}").symlink_to(whole / name)
        assert find_weights(tmp_path, name).parent.parent == tmp_path / name
    torch.manual_seed(0)
    (tmp_path / "stage_a" / "weights").mkdir(parents=True)
    save_network(
        tmp_path / "stage_a" / "weights" / "stage_a.safetensors",
        modules.build("stage_a", STAGE_A),
        "stage_a",
        {},
    )
    cascade = Cascade.load(
        str(tmp_path), device="cpu", stage_c=str(whole / "stage_c"), stage_b=str(whole / "stage_b")
    )
    sampling = cascade.networks.sampling("stage_c", StageSettings())
    assert {key: getattr(sampling, key) for key in SAMPLING} == SAMPLING
    one, again, other = (
        cascade.generate("red circle", 1, stage_c=StageSettings(steps=n))[0] for n in (2, 2, 1)
    )
    assert one.facts["stage_c"]["sampler"] == "lcm"
    assert one.image.tobytes() == again.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_times": 10}, r"recipe\.num_times: expected a multiple of teacher\.steps \(4\), found 10"),
        (
            {"teacher": TEACHER | {"sampler": "ddpm"}},
            r"recipe\.teacher: expected sampler ddim, found 'ddpm'",
        ),
        ({"teacher": TEACHER | {"shift": 1.0}}, r"recipe\.base\.sampling\.shift: expected the teacher's, 1,"),
        (
            {"num_times": 4, "base": {"steps": 3}},
            r"recipe\.base\.sampling\.steps: expected a divisor .*found 3",
        ),
        ({"speed": 3}, r"recipe\.speed: unknown key"),
    ],
)
def test_settings_that_cannot_work_are_told(
    change: dict[str, Any], message: str, settings: Settings, tmp_path: Path
) -> None:
    if "base" in change:
        change["base"] = RECIPES["stage_c"]["recipe"] | {"sampling": SAMPLING | change["base"]}
    with pytest.raises(ConfigError, match=message):
        make_recipe(config_from_plain(settings(tmp_path, **change)))


def test_networks_that_cannot_be_distilled_are_told(settings: Settings, tmp_path: Path) -> None:
    plain = settings(tmp_path)
    plain["model"]["stage_c"] = {"config": STAGE_C}
    with pytest.raises(ConfigError, match=r"model\.stage_c\.weights: missing; name the file or run"):
        make_recipe(config_from_plain(plain))
    plain = settings(tmp_path, "stage_b")
    compressor = plain["model"]["semantic_compressor"]
    plain["model"]["semantic_compressor"] = {key: compressor[key] for key in compressor if key != "train"}
    with pytest.raises(ConfigError, match=r"model\.semantic_compressor\.train: expected false"):
        make_recipe(config_from_plain(plain))
