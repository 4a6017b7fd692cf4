"""The demo's world: one coloured shape on a background, drawn from five named attributes."""

import itertools
from typing import NamedTuple

import numpy as np

SIZE_PX = 64
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 165, 65),
    "blue": (45, 85, 225),
    "yellow": (245, 205, 40),
    "purple": (145, 55, 175),
    "orange": (245, 130, 30),
}
SHAPES = ("circle", "square", "triangle", "cross")
OBJECTS = ("pillar",)  # shapes that are not part of the world, for models to learn later
RADII_PX = {"small": 10.0, "large": 13.0}
PLACES = {  # centres of the quadrants, and the middle
    "centre": (32.0, 32.0),
    "top left": (16.0, 16.0),
    "top right": (48.0, 16.0),
    "bottom left": (16.0, 48.0),
    "bottom right": (48.0, 48.0),
}
BACKGROUNDS = {
    "white": (244, 244, 244),
    "black": (18, 18, 22),
    "grey": (128, 130, 134),
    "beige": (222, 204, 172),
}
SHADING = 0.06  # a background is this much lighter at its top and darker at its bottom
JITTER_PX = 0.5


class Scene(NamedTuple):
    """The five attributes of a picture."""

    colour: str
    shape: str
    size: str
    place: str
    background: str


def all_scenes() -> list[Scene]:
    """Every combination of the attributes (960), in a fixed order."""
    return [Scene(*names) for names in itertools.product(COLOURS, SHAPES, RADII_PX, PLACES, BACKGROUNDS)]


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius_px: float) -> np.ndarray:
    """Distance to the shape's outline, negative inside (exact on the faces, a lower bound at corners).

    x, y: coordinates relative to the shape's centre, y downwards, px. All shapes have about a circle's area.
    """
    if shape == "circle":
        return np.hypot(x, y) - radius_px
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.886 * radius_px
    if shape == "triangle":
        y = y - 0.15 * radius_px  # centres the triangle's height rather than its centroid
        return np.maximum(y, 0.866 * np.abs(x) - 0.5 * y) - 0.7 * radius_px
    if shape == "cross":
        arm_px, half_px = 1.2 * radius_px, 0.37 * radius_px
        bars = [np.maximum(np.abs(a) - arm_px, np.abs(b) - half_px) for a, b in ((x, y), (y, x))]
        return np.minimum(*bars)
    if shape == "pillar":
        return np.maximum(np.abs(x) - 0.55 * radius_px, np.abs(y) - 1.4 * radius_px)
    raise ValueError(f"shape: expected one of {', '.join((*SHAPES, *OBJECTS))}, found '{shape}'")


def coverage(shape: str, centre_px: tuple[float, float], radius_px: float) -> np.ndarray:
    """How much of each pixel the shape covers: [64, 64] float in [0, 1], with soft (antialiased) edges."""
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX] + 0.5
    return np.clip(0.5 - signed_distance(shape, x - centre_px[0], y - centre_px[1], radius_px), 0.0, 1.0)


def background(name: str) -> np.ndarray:
    """[64, 64, 3] float RGB in 0..255: a flat colour, gently lighter at the top."""
    shade = 1.0 + SHADING * np.linspace(1.0, -1.0, SIZE_PX)[:, None, None]
    return np.clip(np.array(BACKGROUNDS[name], float) * shade, 0, 255) * np.ones((1, SIZE_PX, 1))


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene. The place is jittered by up to half a pixel, the size by 2 %, the colour by 6 levels.

    Returns [64, 64, 3] uint8 RGB.
    """
    x, y = PLACES[scene.place]
    dx, dy = rng.uniform(-JITTER_PX, JITTER_PX, 2)
    radius_px = RADII_PX[scene.size] * rng.uniform(0.98, 1.02)
    colour = np.array(COLOURS[scene.colour], float) + rng.uniform(-6, 6, 3)
    cover = coverage(scene.shape, (x + dx, y + dy), radius_px)[..., None]
    picture = background(scene.background) * (1.0 - cover) + colour * cover
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
