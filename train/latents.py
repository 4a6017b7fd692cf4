"""Training on what `dataset_tools precompute` made, in place of pictures: who can, and whether it fits."""

from typing import Any, Protocol, runtime_checkable

from dataset_tools.latents import Latents
from modules.schema import ConfigError
from modules.settings import identity


@runtime_checkable
class LearnsFromLatents(Protocol):
    """A recipe whose loss needs no pixels."""

    def use_latents(self, made: Latents) -> tuple[str, ...]:
        """Be told before `build` that batches hold precomputed latents, no pictures.

        Returns the names of the parts that it reads. Raises ConfigError when they do not fit its settings.
        """


def use_latents(recipe: Any, name: str, made: Latents) -> Latents:
    """Tell a recipe; returns what it reads. Raises ConfigError for one that learns from pixels."""
    if not isinstance(recipe, LearnsFromLatents):
        raise ConfigError(
            f"data.shards: {made.folder} holds precomputed latents, but {name} learns from pixels;"
            " name shards of pictures"
        )
    return made.only(recipe.use_latents(made))


def check_part(made: Latents, name: str, settings: Any, scale: float = 1.0) -> None:
    """Raise ConfigError unless a part is there and was made by the network that the settings name.

    scale: what the network is to see of a picture's size.
    """
    if name not in made.parts:
        raise ConfigError(
            f"data.shards: the latents in {made.folder} hold nothing of model.{name}, found"
            f" {', '.join(made.parts)}; run precompute with that network into another folder"
        )
    part = made.facts.networks[name]
    if (expected := identity(name, settings)) != part.identity:
        raise ConfigError(
            f"model.{name}: expected the network that made the latents in {made.folder} ({part.identity}),"
            f" found another ({expected}); name that one, or run precompute with this one"
        )
    if scale != part.scale:
        raise ConfigError(
            f"recipe.compressor_scale: expected {part.scale:g}, as of the latents in {made.folder},"
            f" found {scale:g}"
        )
