"""Opening pictures of every kind as 8-bit RGB, on purpose rather than by Pillow's default conversions."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

from PIL import ExifTags, Image

from dataset_tools.colours import to_rgb

MAX_PIXELS = 1 << 28
"""Larger pictures are refused before they are decoded: a few bytes of file can ask for any memory.

268 million lets the largest cameras of telephones (200 million) pass.
"""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this, and refuses above twice this
Image.preinit()  # first, so that common formats are tried first
Image.init()
_NO_DECODER = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
"""Pillow recognises these but cannot decode them."""
_RUNS_PROGRAM = {"EPS"}
"""Pillow starts Ghostscript for these; a data set must not run anything."""
FORMATS = tuple(name for name in Image.OPEN if name not in _NO_DECODER | _RUNS_PROGRAM)
SUFFIXES = frozenset(ext for ext, name in Image.registered_extensions().items() if name in FORMATS) | {".mpo"}
"""File name endings, lower case and with the dot, of the pictures that can be opened."""

_EXT = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "SPIDER": "spi"}


class Header(NamedTuple):
    """What a picture's header says, after EXIF rotation."""

    width_px: int
    height_px: int
    ext: str
    """The usual file name ending of the format, without a dot: the content decides, not the file's name."""


def read_header(data: bytes) -> Header:
    """Read size and format without decoding pixels. Raises ValueError with a one-line reason."""
    with _opened(data) as image:
        width, height = image.size
        if _orientation(image, data) >= 5:  # 5 to 8 swap the sides
            width, height = height, width
        name = image.format or ""
        return Header(width, height, _EXT.get(name, name.lower()))


def image_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels after EXIF rotation, without decoding. Raises ValueError."""
    header = read_header(data)
    return header.width_px, header.height_px


def open_image(data: bytes, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode a picture to RGB: upright, sRGB, 8 bits, transparent places white, the first frame.

    at_least: (width, height) that suffice; a JPEG is then decoded at 1/2, 1/4 or 1/8 of its size if that is
    not smaller, which is faster.
    Raises ValueError with a one-line reason when any of it cannot be decoded; a truncated file is refused.
    """
    with _opened(data) as image:
        orientation = _orientation(image, data)
        if at_least:
            image.draft(None, at_least if orientation < 5 else at_least[::-1])
        image.load()
        upright = _upright(to_rgb(image), orientation)
    upright.info.clear()  # else Pillow would write comments and profiles of the source into a new file
    return upright


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Open a picture lazily; whatever goes wrong in the block becomes a ValueError."""
    if not data:
        raise ValueError("the file is empty")
    try:
        with warnings.catch_warnings():  # Pillow warns of odd EXIF data, palettes and large sizes
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                if min(image.size) < 1:
                    raise ValueError(f"the picture is empty: {image.width} x {image.height} pixels")
                yield image
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"not a picture of a known format (starts with {data[:8]!r})") from error
    except Exception as error:  # decoders raise all kinds on damaged data: SyntaxError, struct.error, …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason) from error


def _orientation(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of a picture that is open but not decoded."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    if image.format == "PNG" and (exif := _png_exif(data)):
        image.info["exif"] = exif
    try:
        # Not the PNG class's own method, which decodes the picture to look for EXIF data behind it.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data do not make a picture unreadable
        return 1
    return value if value in range(1, 9) else 1


def _png_exif(data: bytes) -> bytes:
    """Return the content of a PNG's eXIf chunk wherever it stands; empty when there is none."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"eXIf":
            return data[position + 8 : position + 8 + length]
        position += 12 + length
    return b""


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
