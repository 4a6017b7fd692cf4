"""The recipes that others can wrap, by name."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from modules.schema import ConfigError, from_plain, nearest
from train.config import Config
from train.recipes.diffusion import DiffusionRecipe
from train.recipes.settings import StageBModel, StageBSettings, StageCModel, StageCSettings
from train.recipes.stage_b import StageBRecipe
from train.recipes.stage_c import StageCRecipe

BASES: dict[str, type[StageBRecipe] | type[StageCRecipe]] = {
    "stage_b": StageBRecipe,
    "stage_c": StageCRecipe,
}
SETTINGS: dict[str, type] = {"stage_b": StageBSettings, "stage_c": StageCSettings}
MODELS: dict[str, type] = {"stage_b": StageBModel, "stage_c": StageCModel}


def model_names(settings: Mapping[str, Any]) -> list[str]:
    """The networks and encoders of the recipe that `settings` name; none for a name that is no base's."""
    kind = MODELS.get(str(settings.get("name")))
    return [entry.name for entry in fields(kind)] if kind else []


def make_base(config: Config, settings: Mapping[str, Any], learns: bool) -> DiffusionRecipe:
    """The recipe that `settings` (those of recipe.base) name; unless it learns, its networks are frozen.

    Raises ConfigError for a recipe that cannot be wrapped, or settings that it does not have.
    """
    name = str(settings.get("name"))
    if name not in BASES:
        raise ConfigError(
            f"recipe.base.name: found {name!r}, which cannot be wrapped; {nearest(name, BASES)}"
        )
    from_plain(SETTINGS[name], settings, "recipe.base")  # which the recipe itself would call "recipe"
    return BASES[name](replace(config, recipe=dict(settings)), learns=learns)
