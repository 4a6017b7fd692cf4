"""What can be trained: one recipe per file, chosen by `recipe.name`."""

from collections.abc import Callable

from modules.schema import ConfigError, nearest
from train.config import Config
from train.recipe import Recipe
from train.recipes.controlnet import ControlNetRecipe
from train.recipes.ip_adapter import IPAdapterRecipe
from train.recipes.lcm import LCMRecipe
from train.recipes.lora import LoRARecipe
from train.recipes.previewer import PreviewerRecipe
from train.recipes.stage_a import StageARecipe
from train.recipes.stage_b import StageBRecipe
from train.recipes.stage_c import StageCRecipe

RECIPES: dict[str, Callable[[Config], Recipe]] = {
    "stage_a": StageARecipe,
    "stage_b": StageBRecipe,
    "stage_c": StageCRecipe,
    "previewer": PreviewerRecipe,
    "lcm": LCMRecipe,
    "lora": LoRARecipe,
    "controlnet": ControlNetRecipe,
    "ip_adapter": IPAdapterRecipe,
}


def make_recipe(config: Config) -> Recipe:
    """The recipe that the settings name, with its own settings checked; no network is made yet.

    Raises ValueError, one line, for settings that the recipe does not have or that cannot work.
    """
    name = config.recipe.get("name")
    if name not in RECIPES:
        raise ConfigError(f"recipe.name: no recipe is called {name!r}; {nearest(str(name), RECIPES)}")
    if config.data.control is not None and name != "controlnet":
        raise ConfigError(
            f"data.control: read by the recipe controlnet alone, found recipe {name}; leave it out"
        )
    return RECIPES[name](config)
