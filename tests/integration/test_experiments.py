"""Every experiment composes, passes all checks, and its networks build on the meta device."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import modules
from train.config import config_from_plain
from train.recipes import RECIPES, make_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = sorted(
    str(path.relative_to(CONFIGS / "experiment").with_suffix(""))
    for path in (CONFIGS / "experiment").rglob("*.yaml")
)
PARAMETERS = {  # of the networks that learn, in all
    "train/stage_a": 18_406_894 + 6_271_105,
    "train/stage_b_700m": 699_471_248 + 20_197_968,
    "train/stage_b_1_5b": 1_562_941_136 + 20_197_968,
    "finetune/stage_b_700m": 699_471_248,
    "finetune/stage_b_1_5b": 1_562_941_136,
    "train/stage_c_1b": 1_030_785_040,
    "train/stage_c_1b_low_resolution": 1_030_785_040,
    "train/stage_c_1b_v": 1_030_785_040,
    "train/stage_c_3_6b": 3_589_103_632,
    "finetune/stage_c_1b": 1_030_785_040,
    "finetune/stage_c_3_6b": 3_589_103_632,
    "train/previewer": 3_979_651,
}


def composed(experiment: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        settings = compose("train", [f"experiment={experiment}", "data.shards=data/mine", *overrides])
    return OmegaConf.to_container(settings, resolve=True)  # type: ignore[return-value]


def without_files(plain: dict[str, Any]) -> dict[str, Any]:
    """The same settings where no weights have to be there."""
    random = {"weights": None, "allow_random": True}
    entries = plain["model"].items()
    return plain | {"model": {key: entry | random if "weights" in entry else entry for key, entry in entries}}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_passes_all_checks_and_its_networks_build_on_meta(experiment: str) -> None:
    plain = composed(experiment)
    config = config_from_plain(without_files(plain))
    assert config.name == experiment
    assert config.run.dir == f"outputs/{experiment}"
    recipe = make_recipe(config)  # builds every network on meta
    # A frozen network without weights would let a whole run learn from noise.
    for name, entry in plain["model"].items():
        assert name in recipe.learning or entry.get("weights") or "source" in entry
        assert not entry.get("allow_random")
    if experiment in PARAMETERS:
        assert (
            sum(size(name, config.model[name]["config"]) for name in recipe.learning)
            == PARAMETERS[experiment]
        )


def settings_class(recipe: str) -> Any:
    """The dataclass of a recipe's own settings."""
    config = config_from_plain(without_files(composed(f"tiny/{recipe}")))
    return type(make_recipe(config).settings)  # type: ignore[attr-defined]


def size(name: str, config: dict[str, Any]) -> int:
    """The number of a network's parameters."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in modules.build(name, config).parameters())


def test_there_is_an_experiment_of_every_recipe_at_released_and_tiny_size() -> None:
    assert set(PARAMETERS) <= set(EXPERIMENTS)
    assert {f"tiny/{name}" for name in RECIPES} <= set(EXPERIMENTS)


@pytest.mark.parametrize("group", ["recipe", "gdf"])
def test_every_option_says_all_settings_with_the_defaults_of_the_code(group: str) -> None:
    """What a file leaves out could drift from what its reader expects."""
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        settings: Any = OmegaConf.to_container(OmegaConf.load(path))
        if group == "recipe":
            defaults = asdict(settings_class(settings["name"])(settings["name"]))
            for key in ("base", "defaults"):  # the base is composed from its own option
                defaults.pop(key, None)
                settings.pop(key, None)
            assert settings == json.loads(json.dumps(defaults))  # tuples as lists
        else:
            assert set(settings) == {
                "schedule", "input_scaler", "target", "noise_cond", "loss_weight", "offset_noise",
            }  # fmt: skip


def test_one_word_changes_the_size() -> None:
    plain = composed("train/stage_c_1b", "model/stage_c=3_6b")
    assert plain["model"]["stage_c"]["config"]["c_hidden"] == [2048, 2048]
