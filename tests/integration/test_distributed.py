"""Two real processes under torchrun give the loss curve of one with the same global batch."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modules.weights import read_tensors
from tests.integration.recipe_cases import RECIPES as RECIPE_CASES
from train.config import config_from_plain
from train.loop import run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPES = {name: RECIPE_CASES[name] for name in ("stage_a", "stage_b", "stage_c", "previewer")}
# Both players and the care of dead codes have their turn within the few steps.
IN_TIME = {"adversarial_start_step": 2, "revive_every": 3}
RECIPES["stage_a"] = RECIPES["stage_a"] | {"recipe": RECIPES["stage_a"]["recipe"] | IN_TIME}
GLOBAL_BATCH = 4
STEPS, HALF = 6, 3
ALSO_COMPARED = ("gradient_norm", "learning_rate", "samples", "skipped_steps")

Settings = Callable[[str, str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def settings(folder: Path, shards: Path) -> Settings:
    """Makes the settings of one recipe's run in its own folder."""

    def make(recipe: str, mode: str, num_steps: int = STEPS) -> dict[str, Any]:
        batch_size = GLOBAL_BATCH if mode == "one" else GLOBAL_BATCH // 2
        return {
            "name": "test",
            "run": {
                "dir": str(folder / f"{recipe}_{mode}"),
                "num_steps": num_steps,
                "log_every": 1,
                "save_every": HALF,
                "keep_every": HALF,
                "sample_every": HALF,
                "num_samples": 2,
                "device": "cpu",
                "ema": {"decay": 0.5},
            },
            "data": {
                "shards": str(shards),
                "image_size_px": 32,
                "multiple_px": 32,
                "aspect_ratios": ["1/1"],
                "batch_size": batch_size,
                "num_workers": 0,
                "split": "samples",
            },
            "optim": {"lr": 1e-3},
            "parallel": {"mode": "ddp" if mode == "one" else mode},
            **RECIPES[recipe],
        }

    return make


@pytest.fixture(scope="module")
def one(settings: Settings) -> None:
    """All recipes with one process."""
    for recipe in RECIPES:
        run(config_from_plain(settings(recipe, "one")))


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def mode(request: pytest.FixtureRequest, settings: Settings, folder: Path) -> str:
    """All recipes with two processes."""
    configs = folder / f"{request.param}.json"
    configs.write_text(json.dumps([settings(recipe, request.param) for recipe in RECIPES]))
    torchrun(HERE / "train_worker.py", configs)
    return request.param


def torchrun(*arguments: object, ranks: int = 2) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONFAULTHANDLER": "1",  # a rank that aborts says where it was
    }
    done = subprocess.run(
        [*launcher, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_give_the_loss_curve_of_one(one, mode, recipe, folder) -> None:
    alone, together = rows(folder / f"{recipe}_one"), rows(folder / f"{recipe}_{mode}")
    assert len(alone) == len(together) == STEPS
    for expected, found in zip(alone, together, strict=True):
        assert expected.keys() == found.keys()
        told = [name for name in expected if "loss" in name or name.split("/")[-1] in ALSO_COMPARED]
        assert len(told) >= 4
        for name in told:
            if expected[name] or found[name]:
                assert float(found[name]) == pytest.approx(float(expected[name]), rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_write_the_weights_of_one(one, mode, recipe, folder) -> None:
    weights = folder / f"{recipe}_one" / "weights"
    assert any(path.stem.endswith("_ema") for path in weights.iterdir())
    for path in weights.iterdir():
        expected = read_tensors(path)
        found = read_tensors(folder / f"{recipe}_{mode}" / "weights" / path.name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            # A bias before a normalisation follows nothing but rounding, and the mean after it follows it.
            if key.endswith(("bias", "running_mean")):
                continue
            # AdamW's first steps are of size lr whatever the gradient's: rounding may turn a few around.
            assert (value.float() - found[key].float()).abs().mean() < 2e-4, f"{path.name} {key}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_process_goes_on_from_the_checkpoint_of_two(one, mode, recipe, settings, folder) -> None:
    plain = settings(recipe, mode)
    plain["data"]["batch_size"] = GLOBAL_BATCH
    whole = rows(folder / f"{recipe}_{mode}")
    (folder / f"{recipe}_{mode}" / "checkpoints" / "latest").write_text(f"step_{HALF:08d}")
    run(config_from_plain(plain))
    again = rows(folder / f"{recipe}_{mode}")
    assert [row["step"] for row in again] == [row["step"] for row in whole]
    name = next(name for name in again[0] if name.endswith("loss"))
    for expected, found in zip(whole, again, strict=True):
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=2e-3, abs=1e-5)


def test_statistics_and_gradients_over_ranks_are_those_of_the_whole_batch() -> None:
    torchrun(HERE / "gradients_worker.py")
