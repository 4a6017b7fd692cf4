"""Sizes of pictures: what can be asked for, and what is made when nothing is."""

import math
from typing import NamedTuple

MIN_SIDE_PX, MAX_SIDE_PX = 16, 16384


class Size(NamedTuple):
    """Height and width, in pixels or in latents."""

    height: int
    width: int


def picture_size(height_px: int | None, width_px: int | None, default: Size) -> Size:
    """The size of a picture of which both sides, one or none are asked for.

    One side alone keeps the proportions of the default. Raises ValueError for a size no picture can have.
    """
    if height_px is None and width_px is None:
        height_px, width_px = default
    elif height_px is None:
        height_px = round(_checked("width_px", width_px) * default.height / default.width)
    elif width_px is None:
        width_px = round(_checked("height_px", height_px) * default.width / default.height)
    return Size(_checked("height_px", height_px), _checked("width_px", width_px))


def check_side(name: str, side_px: int | None) -> None:
    """Raise ValueError for a side that no picture can have; None is still open."""
    if side_px is not None and not MIN_SIDE_PX <= side_px <= MAX_SIDE_PX:
        raise ValueError(f"{name}: expected {MIN_SIDE_PX} to {MAX_SIDE_PX}, found {side_px}")


def _checked(name: str, side_px: int | None) -> int:
    assert side_px is not None  # of each pair at least one is given
    check_side(name, side_px)
    return side_px


def same_area(size: Size, side_px: int) -> Size:
    """The size with the proportions of `size` and the area of a square of side_px."""
    scale = side_px / math.sqrt(size.height * size.width)
    return Size(round(size.height * scale), round(size.width * scale))


def near_area(size: Size, side_px: int) -> Size:
    """The size itself where its area is within a factor of 2 of the square's, else `same_area`."""
    within = 0.5 <= size.height * size.width / side_px**2 <= 2
    return size if within else same_area(size, side_px)
