"""A folder of pictures as people have them: the demo's shapes, two of a kind in each picture."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataset_tools.shapes_world import BACKGROUNDS, COLOURS, SHAPES, SIZE_PX, signed_distance

SIZES_PX = ((96, 96), (120, 90), (90, 120), (128, 128))  # width, height
PLACES = (-16.0, 16.0)  # of both shapes on the falling diagonal, from the middle of a 64 px square
RADIUS_PX = 12.0


def write_pairs(folder: Path, *, held_out: bool = False) -> None:
    """Write 24 JPEGs of pairs, and a caption beside each, such as "a red circle on a white background".

    Twelve of the 24 combinations of colour and shape are shown, twice each; held_out: the other twelve.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backgrounds = list(BACKGROUNDS)
    for i, colour in enumerate(COLOURS):
        for j, shape in enumerate(SHAPES):
            if ((i + j) % 2 == 1) != held_out:
                continue
            for k in range(2):
                background = backgrounds[(i // 2 + j + 2 * k) % len(backgrounds)]
                picture = draw_pair(colour, shape, background, *SIZES_PX[(i + j // 2 + k) % len(SIZES_PX)])
                name = f"{colour}_{shape}_{k + 1}"
                picture.save(folder / f"{name}.jpg", quality=92)
                # Also "a orange": the demo's text encoder has no "an" among its words.
                caption = f"a {colour} {shape} on a {background} background\n"
                (folder / f"{name}.txt").write_text(caption, encoding="utf-8")


def draw_pair(colour: str, shape: str, background: str, width_px: int, height_px: int) -> Image.Image:
    """Two equal shapes on a diagonal, in the middle square of the picture."""
    scale = min(width_px, height_px) / SIZE_PX
    y, x = np.mgrid[0:height_px, 0:width_px] + 0.5
    x, y = (x - width_px / 2) / scale, (y - height_px / 2) / scale
    distance = np.minimum(*(signed_distance(shape, x - at, y - at, RADIUS_PX) for at in PLACES))
    cover = np.clip(0.5 - distance * scale, 0, 1)[..., None]
    pixels = np.array(BACKGROUNDS[background]) * (1 - cover) + np.array(COLOURS[colour]) * cover
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
