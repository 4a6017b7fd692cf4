"""Captions for the demo's pictures, in varied wording, some of them leaving an attribute out."""

import numpy as np

from dataset_tools.shapes_world import OBJECTS, Scene, all_scenes

SYNONYMS = {
    "small": ("small", "little"),
    "large": ("large", "big"),
    "centre": ("centre", "middle"),
    "top left": ("top left", "upper left"),
    "top right": ("top right", "upper right"),
    "bottom left": ("bottom left", "lower left"),
    "bottom right": ("bottom right", "lower right"),
}
ORDERS = (
    "{thing} {where} {behind}",
    "{behind} {thing} {where}",
    "{thing} {behind} {where}",
)
THINGS = ("a {size} {colour} {shape}", "one {size} {colour} {shape}", "a {colour} {size} {shape}")
WHERES = ("in the {place}", "at the {place}")
BEHINDS = ("on a {background} background", "on {background}", "with a {background} background")
OMITTED = 0.15  # chance that a training caption leaves out the size, the place or the background, each


def full_caption(scene: Scene) -> str:
    """The plain caption that names all five attributes, as used for prompts."""
    thing = f"a {scene.size} {scene.colour} {shape_name(scene.shape)}"
    return f"{thing} in the {scene.place} on a {scene.background} background"


def shape_name(shape: str) -> str:
    """What captions call a shape: its name; a new object is called by a token of its own, "[pillar]"."""
    return f"[{shape}]" if shape in OBJECTS else shape


def varied_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption in random wording; colour and shape are always named."""

    def pick(options: tuple[str, ...], omitted: float = 0.0) -> str:
        return "" if rng.random() < omitted else options[rng.integers(len(options))]

    size = pick(SYNONYMS[scene.size], OMITTED)
    thing = pick(THINGS).format(size=size, colour=scene.colour, shape=shape_name(scene.shape))
    where = pick(WHERES, OMITTED).format(place=pick(SYNONYMS[scene.place]))
    behind = pick(BEHINDS, OMITTED).format(background=scene.background)
    return " ".join(pick(ORDERS).format(thing=thing, where=where, behind=behind).split())


def vocabulary() -> list[str]:
    """Every word that a caption can contain, sorted."""
    phrases = [phrase for options in SYNONYMS.values() for phrase in options]
    phrases += [full_caption(scene) for scene in all_scenes()] + [*THINGS, *WHERES, *BEHINDS]
    return sorted({word for phrase in phrases for word in phrase.split() if "{" not in word})
