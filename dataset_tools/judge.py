"""Reads a demo picture back: which colour, shape, size, place and background does it show?"""

import itertools
from functools import cache

import numpy as np
from PIL import Image

from dataset_tools.shapes_world import (
    BACKGROUNDS,
    COLOURS,
    OBJECTS,
    PLACES,
    RADII_PX,
    SHAPES,
    SIZE_PX,
    coverage,
)

MAX_MISFIT = 0.5  # above this share of unexplained shape pixels a picture shows no known shape
SCALES = (0.95, 1.0, 1.05)
BLURS_PX = (0.0, 1.0, 1.7)
MIN_CONTRAST = 24.0  # RGB levels by which a shape must differ from its background
REACH_PX = 8.0  # a shape further than this from every named place has no place


def read(image: Image.Image | np.ndarray) -> dict[str, str | None]:
    """Name what a picture shows; an attribute that cannot be told is None.

    image: PIL image of any size, or [H, W, 3] uint8. The colour is that of the pixels which differ most from
    the background; shape, size and place come from the template that explains the coloured area best.
    Returns {"colour", "shape", "size", "place", "background"}.
    """
    pixels = _pixels(image)
    base = np.median(np.concatenate([pixels[:, :2], pixels[:, -2:]], axis=1), axis=1)[
        :, None, :
    ]  # [64, 1, 3]
    behind = _nearest(base.mean(axis=(0, 1)), BACKGROUNDS)
    result: dict[str, str | None] = dict.fromkeys(("colour", "shape", "size", "place"))
    result["background"] = behind

    difference = pixels - base
    contrast = np.linalg.norm(difference, axis=-1)
    strongest = np.sort(contrast, axis=None)[-40:].mean()
    if strongest < MIN_CONTRAST:
        return result
    colour = np.median(pixels[contrast > 0.8 * strongest], axis=0)
    result["colour"] = _nearest(colour, COLOURS)

    direction = colour - base
    cover = (difference * direction).sum(-1) / np.maximum((direction**2).sum(-1), 1.0)
    result.update(_fit(np.clip(cover, 0.0, 1.0)))
    return result


def _pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.convert("RGB")
    if picture.size != (SIZE_PX, SIZE_PX):
        picture = picture.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(picture, np.float64)


def _nearest(rgb: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(rgb - np.array(palette[name]))))


@cache
def _templates() -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """(shape, size) of each template, the conjugate spectra of their coverages, and their energies.

    Every shape stands there a little smaller and larger, sharp and blurred, as resizing and JPEG leave it.
    """
    names, spectra, energies = [], [], []
    wave = np.hypot(np.fft.fftfreq(SIZE_PX)[:, None], np.fft.rfftfreq(SIZE_PX)[None])
    for shape, size, scale in itertools.product((*SHAPES, *OBJECTS), RADII_PX, SCALES):
        spectrum = np.fft.rfft2(coverage(shape, (SIZE_PX / 2, SIZE_PX / 2), scale * RADII_PX[size]))
        for blur_px in BLURS_PX:
            blurred = spectrum * np.exp(-2 * (np.pi * blur_px * wave) ** 2)  # a Gaussian's transfer function
            names.append((shape, size))
            spectra.append(np.conj(blurred))
            energies.append((np.fft.irfft2(blurred, s=(SIZE_PX, SIZE_PX)) ** 2).sum())
    return names, np.stack(spectra).astype(np.complex64), np.array(energies, np.float32)


def _fit(cover: np.ndarray) -> dict[str, str | None]:
    """The template and shift with the least squared misfit |cover - template|^2, over all shifts at once."""
    names, spectra, energies = _templates()
    overlap = np.fft.irfft2(np.fft.rfft2(cover.astype(np.float32)) * spectra, s=cover.shape)
    misfit = (cover**2).sum() + energies[:, None, None] - 2 * overlap
    which, dy, dx = np.unravel_index(int(misfit.argmin()), misfit.shape)
    if misfit.min() > MAX_MISFIT * energies[which]:
        return {"shape": None, "size": None, "place": None}
    centre = [(shift + SIZE_PX // 2) % SIZE_PX for shift in (dx, dy)]
    distance = {name: float(np.hypot(centre[0] - x, centre[1] - y)) for name, (x, y) in PLACES.items()}
    place = min(distance, key=lambda name: distance[name])
    shape, size = names[which]
    return {"shape": shape, "size": size, "place": place if distance[place] <= REACH_PX else None}
