"""Pictures that visitors upload: verified, and written anew before anything else looks at them."""

import hashlib
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from inference.app.words import Refused
from inference.sources import open_source

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
NAMES = "PNG, JPEG or WebP"
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
MOST_PIXELS = 50_000_000  # of what is decoded at all
LONGEST_PX = 4096  # of what is kept: larger ones are shrunk
PAINTED = 8  # of 255: how opaque a stroke of the brush has to be


class Uploads:
    """The folder of the pictures that visitors have uploaded, each named by its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, file: str | Path, what: str) -> Path:
        """Write an uploaded picture anew; returns the path. what: the field, for the message.

        Raises Refused for what is no picture, broken, or larger than MOST_PIXELS.
        """
        image = read(file, what)
        image.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
        return self._keep(image)

    def take_painted(self, picture: str | Path, strokes: str | Path, what: str) -> tuple[Path, Path]:
        """A picture and what was painted over it: paths of both, the mask white where there is paint.

        Raises Refused as `take`, and where nothing was painted.
        """
        image, painted = read(picture, what), read(strokes, what, "RGBA").getchannel("A")
        mask = painted.resize(image.size).point(lambda level: 255 if level >= PAINTED else 0)
        if mask.getextrema()[1] == 0:
            raise Refused(f"{what}: paint over what is to be drawn anew")
        return self._keep(image), self._keep(mask)

    def _keep(self, image: Image.Image) -> Path:
        pixels = np.ascontiguousarray(image)
        name = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        path = self.folder / f"{name}.png"
        if not path.exists():
            image.save(path, format="PNG")
        return path


def read(file: str | Path, what: str, mode: str = "RGB") -> Image.Image:
    """Decode a picture, upright; Refused says in the page's words why it cannot be."""
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")  # of damage that Pillow can live with
            with Image.open(file, formats=FORMATS) as opened:
                check_size(opened, what)
                upright = ImageOps.exif_transpose(opened)
                kept = upright if upright.mode in PNG_MODES else upright.convert("RGB")
                kept.save(plain := Path(folder) / "plain.png", format="PNG", compress_level=1)
            return open_source(str(plain), what, mode)
    except Refused:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Refused(f"{what}: this file cannot be read as a picture; take a {NAMES} file") from None


def check_size(image: Image.Image, what: str) -> None:
    """Raise Refused for more pixels than are decoded, before they are."""
    if image.width * image.height > MOST_PIXELS:
        most = MOST_PIXELS // 1_000_000
        raise Refused(f"{what}: {image.width} x {image.height} pixels; at most {most} million are taken")
