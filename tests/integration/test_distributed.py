"""Real processes give the loss curve of one with the same global batch, in every mode."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from modules.weights import read_tensors
from tests.integration.launching import run_ranks
from tests.integration.recipe_cases import RECIPES as RECIPE_CASES
from train.config import config_from_plain
from train.loop import run

RECIPES = {name: RECIPE_CASES[name] for name in ("stage_a", "stage_b", "stage_c", "previewer")}
# Both players and the care of dead codes have their turn within the few steps.
IN_TIME = {"adversarial_start_step": 2, "revive_every": 3}
RECIPES["stage_a"] = RECIPES["stage_a"] | {"recipe": RECIPES["stage_a"]["recipe"] | IN_TIME}
GLOBAL_BATCH = 4
STEPS, HALF = 6, 3
EARLY = 2  # steps until which rounding has not grown,
EARLY_CLOSE = {"stage_a": 2e-4}  # but where it may choose another code
ALSO_COMPARED = ("gradient_norm", "learning_rate", "samples", "skipped_steps")


class Mode(NamedTuple):
    """One way to train with several processes, each as many on a machine."""

    machines: int
    parallel: dict[str, Any]
    recipes: tuple[str, ...]
    precision: str = "fp32"


MODES = {
    "one": Mode(0, {"mode": "single"}, tuple(RECIPES)),
    "one_bf16": Mode(0, {"mode": "single"}, ("stage_b", "stage_c"), "bf16"),
    "ddp": Mode(1, {"mode": "ddp"}, (*RECIPES, "unlucky")),
    "fsdp": Mode(1, {"mode": "fsdp", "shard_frozen": True}, (*RECIPES, "unlucky")),
    "fsdp_bf16": Mode(1, {"mode": "fsdp", "activation_checkpointing": True}, ("stage_b", "stage_c"), "bf16"),
    "hsdp_bf16": Mode(2, {"mode": "hsdp"}, ("stage_c",), "bf16"),
    "hsdp": Mode(2, {"mode": "hsdp", "activation_checkpointing": True}, ("stage_b", "stage_c", "unlucky")),
}
COMPILED = {"compile": True, "activation_checkpointing": True}
SLOW_MODES = {
    "ddp_compiled": Mode(1, {"mode": "ddp", **COMPILED}, ("stage_c",)),
    "fsdp_compiled": Mode(1, {"mode": "fsdp", **COMPILED}, ("stage_c",), "bf16"),
    "hsdp_compiled": Mode(2, {"mode": "hsdp", "compile": True}, ("stage_c",)),
}
TWO = ("ddp", "fsdp")
RUNS = [(mode, recipe) for mode in (*TWO, "hsdp") for recipe in MODES[mode].recipes if recipe != "unlucky"]
BF16_RUNS = [(mode, recipe) for mode in ("fsdp_bf16", "hsdp_bf16") for recipe in MODES[mode].recipes]
Settings = Callable[[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def settings(folder: Path, shards: Path) -> Settings:
    """Makes the settings of one recipe's run in its own folder."""

    def make(recipe: str, name: str) -> dict[str, Any]:
        mode = {**MODES, **SLOW_MODES}[name]
        return {
            "name": "test",
            "run": {
                "dir": str(folder / f"{recipe}_{name}"),
                "num_steps": STEPS,
                "log_every": 1,
                "save_every": HALF,
                "keep_every": HALF,
                "sample_every": HALF,
                "num_samples": 2,
                "device": "cpu",
                "precision": mode.precision,
                "channels_last": name == "fsdp",
                "ema": {"decay": 0.5},
            },
            "data": {
                "shards": str(shards),
                "image_size_px": 32,
                "multiple_px": 32,
                "aspect_ratios": ["1/1"],
                "batch_size": GLOBAL_BATCH // (2 * mode.machines or 1),
                "num_workers": 0,
                "split": "samples",
            },
            "optim": {"lr": 1e-3},
            "parallel": mode.parallel,
            **RECIPES.get(recipe, {"recipe": {"name": recipe}}),
        }

    return make


@pytest.fixture(scope="module")
def one(settings: Settings) -> None:
    """All recipes with one process."""
    for mode in ("one", "one_bf16"):
        for recipe in MODES[mode].recipes:
            run(config_from_plain(settings(recipe, mode)))


@pytest.fixture(scope="module")
def two(settings: Settings, folder: Path) -> None:
    """All that two processes do, and laws of their gradients, in one launch."""
    launch(MODES, 1, settings, folder)


@pytest.fixture(scope="module")
def four(settings: Settings, folder: Path) -> None:
    """All that two processes on each of two machines do."""
    launch(MODES, 2, settings, folder)


@pytest.fixture
def done(mode: str, request: pytest.FixtureRequest) -> None:
    """The runs of `mode`."""
    request.getfixturevalue("four" if MODES[mode].machines == 2 else "two")


def launch(modes: Mapping[str, Mode], machines: int, settings: Settings, folder: Path) -> None:
    configs = folder / f"{machines}.json"
    runs = [
        (recipe, name) for name, mode in modes.items() for recipe in mode.recipes if mode.machines == machines
    ]
    configs.write_text(json.dumps([settings(*each) for each in runs]))
    run_ranks("parallel_worker", configs, size=2 * machines, machines=machines)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("mode", "recipe"), RUNS)
def test_several_processes_give_the_loss_curve_of_one(one, done, mode, recipe, folder) -> None:
    alone, together = rows(folder / f"{recipe}_one"), rows(folder / f"{recipe}_{mode}")
    assert len(alone) == len(together) == STEPS
    for step, (expected, found) in enumerate(zip(alone, together, strict=True)):
        assert expected.keys() == found.keys()
        told = [name for name in expected if "loss" in name or name.split("/")[-1] in ALSO_COMPARED]
        assert len(told) >= 4
        for name in told:
            if expected[name] or found[name]:
                close = EARLY_CLOSE.get(recipe, 1e-5) if step < EARLY else 2e-3
                assert float(found[name]) == pytest.approx(float(expected[name]), rel=close, abs=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_compiled_and_recomputed_blocks_give_the_loss_curve_too(one, settings, folder, machines) -> None:
    launch(SLOW_MODES, machines, settings, folder)
    for mode, (its_machines, _, _, precision) in SLOW_MODES.items():
        alone = "one" if precision == "fp32" else "one_bf16"
        if its_machines == machines:
            expected, found = (
                [float(row["loss"]) for row in rows(folder / f"stage_c_{name}")] for name in (alone, mode)
            )
            assert found == pytest.approx(expected, rel=2e-3), mode


@pytest.mark.parametrize(("mode", "recipe"), BF16_RUNS)
def test_weights_gathered_in_bf16_give_the_loss_curve_of_autocast(one, done, mode, recipe, folder) -> None:
    """Losses are closer than numbers of bf16 are to each other (0.4 %)."""
    alone, together = rows(folder / f"{recipe}_one_bf16"), rows(folder / f"{recipe}_{mode}")
    exact = rows(folder / f"{recipe}_one")
    assert any(row["loss"] != other["loss"] for row, other in zip(alone, exact, strict=True))
    for expected, found in zip(alone, together, strict=True):
        assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=5e-4)
        assert float(found["gradient_norm"]) == pytest.approx(float(expected["gradient_norm"]), rel=1e-2)


@pytest.mark.parametrize("mode", [*TWO, "hsdp"])
def test_what_is_not_finite_on_one_rank_is_skipped_by_all(done, mode, folder) -> None:
    """Once a loss, once a gradient; the workers check that all ranks end alike."""
    told = rows(folder / f"unlucky_{mode}")
    assert [int(row["skipped_steps"]) for row in told] == [0, 1, 1, 2, 2, 2]
    assert [bool(row["loss"]) for row in told] == [True, False, True, True, True, True]


@pytest.mark.parametrize(("mode", "recipe"), RUNS)
def test_several_processes_write_the_weights_of_one(one, done, mode, recipe, folder) -> None:
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


@pytest.mark.parametrize(("mode", "recipe"), RUNS)
def test_one_process_goes_on_from_the_checkpoint_of_several(
    one, done, mode, recipe, settings, folder
) -> None:
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
