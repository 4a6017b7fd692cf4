"""The recipes that others can wrap, by name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modules.schema import ConfigError, nearest
from train.config import Config
from train.recipes.diffusion import DiffusionRecipe
from train.recipes.stage_b import StageBRecipe
from train.recipes.stage_c import StageCRecipe

BASES: dict[str, type[StageBRecipe] | type[StageCRecipe]] = {
    "stage_b": StageBRecipe,
    "stage_c": StageCRecipe,
}


def make_base(config: Config, settings: Mapping[str, Any], learns: bool) -> DiffusionRecipe:
    """The recipe that `settings` (those of recipe.base) name; unless it learns, its networks are frozen.

    Raises ConfigError for a recipe that cannot be wrapped.
    """
    name = str(settings.get("name"))
    if name not in BASES:
        raise ConfigError(
            f"recipe.base.name: found {name!r}, which cannot be wrapped; {nearest(name, BASES)}"
        )
    return BASES[name](replace(config, recipe=dict(settings)), learns=learns)
