"""JPEG files, nearly all that training reads, decoded straight into an array by libjpeg-turbo.

Pillow decodes them with the same library, to the same pixels, but through a buffer of four bytes a pixel and
two more copies. Here only files are decoded that are sound in every respect; Pillow judges the others.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

SHRINKS = (8, 4, 2, 1)
"""By which JPEGs are shrunk while they are decoded. With factors between these (8/7, 8/6, …) it takes longer
than to decode all of the picture: libjpeg-turbo has no vector instructions for them."""


def decode_jpeg(
    data: bytes, size: tuple[int, int], at_least: tuple[int, int] | None
) -> NDArray[np.uint8] | None:
    """Decode to RGB, as the file is stored, at the smallest of 1/8, 1/4, 1/2, 1 of its size that suffices.

    size: (width, height) px by the header. at_least: the (width, height) that suffice; None asks for all.
    Returns [H, W, 3]; None when there is anything in the file that the decoder has to complain about.
    """
    width, height = size
    shrink = next(
        each
        for each in SHRINKS
        if each == 1 or (at_least and width // each >= at_least[0] and height // each >= at_least[1])
    )
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):  # two parsers may be told two sizes
            return None
        return simplejpeg.decode_jpeg(
            data, min_width=-(-width // shrink), min_height=-(-height // shrink), strict=True
        )
    except Exception:  # of many kinds; which it is that is wrong, Pillow will find out and say
        return None
