"""What can be trained: one recipe per file, which is its name; `recipe.name` chooses.

To add one, write a file into this folder with one class called …Recipe that does what `train/recipe.py` asks,
and `configs/recipe/mine.yaml` with its settings: `recipe=mine` then chooses it. docs/extend/recipe.md shows
one.
"""

from collections.abc import Callable

from modules.by_file import classes_by_file
from modules.schema import ConfigError, nearest
from train.config import Config
from train.recipe import Recipe


def is_recipe(kind: type) -> bool:
    """Whether a class is one, and not what recipes are made of."""
    return kind.__name__.endswith("Recipe") and not getattr(kind, "_is_protocol", False)


RECIPES: dict[str, Callable[[Config], Recipe]] = classes_by_file(__name__, __path__, is_recipe)


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
