"""From a picture file to the bytes that a shard stores; runs in worker processes, so imports little."""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dataset_tools.images import MAX_MEGAPIXELS, open_image, read_header
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.sources import one_line

ENCODINGS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
"""What pictures can be re-encoded as: file name ending, Pillow's name."""


class Encoding(NamedTuple):
    """How pictures are stored. By default each as it is, byte for byte."""

    reencode: str | None = None
    """One of ENCODINGS; None keeps every picture's own format where it can be kept."""
    quality: int = 95
    """Of jpg and webp, 1 to 100."""
    max_size_px: int | None = None
    """Pictures whose longer side is longer are shrunk to it."""
    max_megapixels: float = MAX_MEGAPIXELS
    """Larger ones are left out."""


class Prepared(NamedTuple):
    """A picture ready to be stored, or why it is none."""

    image: bytes = b""
    ext: str = ""
    size_px: tuple[int, int] = (0, 0)
    """(width, height), upright."""
    problem: UnusableError | None = None


def prepare(path: Path, encoding: Encoding) -> Prepared:
    """Read a picture, decode it to see that it is whole, and encode it anew if that is asked for.

    Never raises for a bad picture: the result has a problem then.
    """
    try:
        data = path.read_bytes()
        image = open_image(data, max_megapixels=encoding.max_megapixels)
        header = read_header(data, encoding.max_megapixels)
    except UnusableError as error:
        return Prepared(problem=error)
    except OSError as error:
        return Prepared(problem=UnusableError(Kind.UNREACHABLE, error.strerror or one_line(error)))
    factor = (encoding.max_size_px or max(image.size)) / max(image.size)
    if factor >= 1 and not encoding.reencode:
        return Prepared(data, header.ext, image.size)
    if factor < 1:
        image = _shrunk(image, factor)
    ext = encoding.reencode or (header.ext if header.ext in ENCODINGS else "png")
    return Prepared(_encode(image, ext, encoding.quality), ext, image.size)


def _shrunk(image: Image.Image, factor: float) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encode(image: Image.Image, ext: str, quality: int) -> bytes:
    """Encode RGB pixels without any metadata; JPEG with full colour resolution."""
    buffer = BytesIO()
    options: dict[str, dict[str, int]] = {
        "jpg": {"quality": quality, "subsampling": 0},
        "webp": {"quality": quality},
        "png": {},
    }
    image.save(buffer, ENCODINGS[ext], **options[ext])
    return buffer.getvalue()
