"""Of every recipe: a run that was interrupted amid everything equals one that was left alone, bit for bit."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cases import settings, write_material
from tests.faults.compare import differences
from train.config import config_from_plain
from train.loop import Summary, run
from train.recipes import make_recipe

RECIPES = (
    "stage_a", "stage_b", "stage_b_frozen_compressor", "stage_c", "previewer", "lora", "controlnet",
    "ip_adapter", "lcm", "lcm_stage_b",
)  # fmt: skip
STEPS, STOP = 5, 3
# The interruption cuts a window of reports and one of codebook care.
RUN = {"num_steps": STEPS, "log_every": 2, "save_every": STEPS, "sample_every": 4}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("material"))


def interrupted(plain: dict[str, Any]) -> Summary:
    """The run, which is asked to end within its step number STOP."""
    config = config_from_plain(plain)
    recipe = make_recipe(config)
    after_step: Callable[[int], None] = recipe.after_step

    def then_stop(step: int) -> None:
        after_step(step)
        if step + 1 == STOP:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe.after_step = then_stop  # type: ignore[method-assign]
    return run(config, recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_interrupted_run_equals_one_left_alone(recipe: str, material: Path, tmp_path: Path) -> None:
    whole, parts = (settings(recipe, tmp_path / name, material, **RUN) for name in ("whole", "parts"))
    assert run(config_from_plain(whole)).step == STEPS
    stopped = interrupted(parts)
    assert stopped.interrupted and stopped.step == STOP
    assert run(config_from_plain(parts)).step == STEPS
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
