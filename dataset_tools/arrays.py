"""What OpenCV does fastest to pixels [H, W, 3]: turn, resize, take apart. All of dataset_tools' use of it."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

cv2.setNumThreads(0)  # data workers are forked, which a pool of threads would not survive

_TURNS: dict[int, Callable[[Pixels], Any]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """The picture upright, if it was stored with this EXIF orientation, 1 to 8."""
    return _TURNS[orientation](pixels) if orientation in _TURNS else pixels


def between_two(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize to (height, width) px, each pixel between two of its line and two of its column. Any type."""
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)


def take_apart(pixels: Pixels, planes: Pixels) -> None:
    """Write the three colours of [H, W, 3] to [3, H, W], which must have just this size and no gaps."""
    cv2.split(pixels, list(planes))
