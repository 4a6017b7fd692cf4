"""Opening pictures of every kind as 8-bit RGB, on purpose rather than by Pillow's default conversions."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from dataset_tools.arrays import turned
from dataset_tools.colours import is_srgb, to_rgb
from dataset_tools.jpeg import decode_jpeg
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.metadata import check_metadata, is_honest

MAX_MEGAPIXELS = 64.0
"""Larger pictures are refused unless a caller allows more: decoding takes up to 16 bytes for each pixel."""
BOMB_PIXELS_PER_BYTE = 100
"""Of pictures that are too large: more pixels than this in a byte of file, and it was made to be one."""
MIN_SIDE_PX = 4
MAX_RATIO = 20
"""Of the longer side to the shorter: to cover a square, such a picture is enlarged to 20 of them."""

Image.MAX_IMAGE_PIXELS = 1 << 28  # Pillow refuses twice that by itself, whatever is allowed here
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""What Pillow may try. Not the rest of what it knows: each decoder is one more way in for hostile files.

EPS even starts Ghostscript, and many of the others have seen no picture since 1995.
"""
Image.init()
SUFFIXES = frozenset(ext for ext, name in Image.registered_extensions().items() if name in FORMATS) | {".mpo"}
"""File name endings, lower case and with the dot, of the pictures that can be opened."""

_EXT = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}


class Header(NamedTuple):
    """What a picture's header says, after EXIF rotation."""

    width_px: int
    height_px: int
    ext: str
    """The usual file name ending of the format, without a dot: the content decides, not the file's name."""


def read_header(data: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Header:
    """Read size and format without decoding pixels. Raises UnusableError, whose text is one line."""
    with _opened(data) as image:
        width, height = _upright_size(image, _orientation(image, data))
        check_size(width, height, len(data), max_megapixels)
        name = image.format or ""
        return Header(width, height, _EXT.get(name, name.lower()))


def image_size(data: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """Return (width, height) in pixels after EXIF rotation, without decoding. Raises UnusableError."""
    header = read_header(data, max_megapixels)
    return header.width_px, header.height_px


def open_image(
    data: bytes,
    at_least: tuple[int, int] | None = None,
    *,
    claimed: tuple[int, int] | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Image.Image:
    """Decode a picture to RGB: upright, sRGB, 8 bits, transparent places white, the first frame.

    at_least: (width, height) that suffice; a JPEG is then decoded at 1/2, 1/4 or 1/8 of its size if that is
    not smaller, which is faster. claimed: the (width, height) that the picture is said to have.
    Raises UnusableError, whose text is one line, when any of it cannot be decoded; a truncated file is
    refused, and so is one of another size than claimed.
    """
    with _opened(data) as image:
        orientation = _checked(image, data, claimed, max_megapixels)
        return _decoded(image, orientation, _as_stored(at_least, orientation))


def read_pixels(
    data: bytes,
    at_least: tuple[int, int] | None = None,
    *,
    claimed: tuple[int, int] | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> NDArray[np.uint8]:
    """Decode a picture like open_image, and raise like it, to an array [H, W, 3]; sound JPEGs faster."""
    with _opened(data) as image:
        orientation = _checked(image, data, claimed, max_megapixels)
        at_least = _as_stored(at_least, orientation)
        if image.format in ("JPEG", "MPO") and is_srgb(image):
            pixels = decode_jpeg(data, image.size, at_least)
            if pixels is not None:
                return turned(pixels, orientation)
        return np.array(_decoded(image, orientation, at_least))


def _checked(image: Image.Image, data: bytes, claimed: tuple[int, int] | None, max_megapixels: float) -> int:
    """Return the EXIF orientation of an open picture that may be decoded. Raises UnusableError."""
    orientation = _orientation(image, data)
    size = _upright_size(image, orientation)
    check_size(*size, len(data), max_megapixels)
    check_claim(claimed, size)
    return orientation


def _as_stored(at_least: tuple[int, int] | None, orientation: int) -> tuple[int, int] | None:
    """The (width, height) px that suffice before the picture is turned upright."""
    return at_least if at_least is None or orientation < 5 else at_least[::-1]


def _decoded(image: Image.Image, orientation: int, at_least: tuple[int, int] | None) -> Image.Image:
    """Decode an open picture to upright RGB by Pillow."""
    if at_least:
        image.draft(None, at_least)
    image.load()
    upright = _upright(to_rgb(image), orientation)
    upright.info.clear()  # else Pillow would write comments and profiles of the source into a new file
    return upright


def check_claim(claimed: tuple[int, int] | None, found: tuple[int, int]) -> None:
    """Raise UnusableError when a picture has not the (width, height) px that it is said to have."""
    if claimed not in (None, found):
        reason = f"the json says {claimed[0]} x {claimed[1]} px, the picture has {found[0]} x {found[1]}"
        raise UnusableError(Kind.FALSE_SIZE, reason)


def check_size(width_px: int, height_px: int, num_bytes: int, max_megapixels: float) -> None:
    """Raise UnusableError for a picture that is too large, small or narrow to be trained on."""
    long, short = max(width_px, height_px), min(width_px, height_px)
    size = f"{width_px} x {height_px} px"
    if long * short > max_megapixels * 1e6:
        is_bomb = long * short > BOMB_PIXELS_PER_BYTE * num_bytes
        reason = f"{size} are more than {max_megapixels:g} megapixels"
        raise (
            UnusableError(Kind.BOMB, f"{reason}, in {num_bytes} bytes")
            if is_bomb
            else UnusableError(Kind.HUGE, reason)
        )
    if short < MIN_SIDE_PX:
        raise UnusableError(Kind.TINY, f"{size}, a side shorter than {MIN_SIDE_PX} px")
    if long > MAX_RATIO * short:
        raise UnusableError(Kind.NARROW, f"{size}, more than {MAX_RATIO} times as long as wide")


def _upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """(width, height) px of an open picture when it is turned as its EXIF says."""
    return image.size if orientation < 5 else (image.height, image.width)  # 5 to 8 swap the sides


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Open a picture lazily; whatever goes wrong in the block becomes an UnusableError."""
    if not data:
        raise UnusableError(Kind.EMPTY, "the file is empty")
    try:
        check_metadata(data)
        with warnings.catch_warnings():  # Pillow warns of odd EXIF data, palettes and large sizes
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                yield image
    except UnusableError:
        raise
    except Image.UnidentifiedImageError as error:
        reason = f"not a picture of a known format (starts with {data[:8]!r})"
        raise UnusableError(Kind.NOT_PICTURE, reason) from error
    except Exception as error:  # decoders raise all kinds on damaged data: SyntaxError, struct.error, …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableError(_kind_of(error), reason) from error


def _kind_of(error: Exception) -> Kind:
    """What Pillow means."""
    text = str(error).lower()
    if isinstance(error, Image.DecompressionBombError) or "max_text" in text:
        return Kind.BOMB
    if isinstance(error, MemoryError):
        return Kind.HUGE
    return Kind.CUT_PICTURE if "truncated" in text else Kind.UNDECODABLE


def _orientation(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of a picture that is open but not decoded."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    if image.format == "PNG" and (exif := _png_exif(data)):
        image.info["exif"] = exif
    if not is_honest(image.info.get("exif", b"")):
        return 1
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
