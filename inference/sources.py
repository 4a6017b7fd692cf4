"""Pictures that the user hands in: opened, fitted to a size, and known again by their checksum."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from inference.sizes import Size


class Source(NamedTuple):
    """Pictures [B, 3, H, W], 0 to 1; and where they are to be drawn anew, [B, 1, H, W]: 1 there, else 0."""

    images: Tensor
    masks: Tensor | None = None

    def row(self, i: int) -> "Source":
        """One of them, as a batch of its own."""
        return Source(self.images[i : i + 1], None if self.masks is None else self.masks[i : i + 1])


def open_source(path: str, setting: str = "image", mode: str = "RGB") -> Image.Image:
    """Read a picture, upright, 16 bits scaled to 8, transparency on white unless the mode has it.

    Raises FileNotFoundError, or ValueError when the file is not a picture, both naming setting and path.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{setting}: {path} does not exist")
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            transparent = upright.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in upright.info
            if transparent and mode != "RGBA":
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            if upright.mode.startswith("I"):  # 16 bits of grey; Pillow's convert would keep the lowest 8
                levels = np.asarray(upright, np.float64).clip(0, 65535) / 257
                upright = Image.fromarray(levels.round().astype(np.uint8))
            return upright.convert(mode)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{setting}: {path} cannot be read as a picture ({error})") from None


def source_size(image: Image.Image) -> Size:
    """Height and width of a Pillow image."""
    return Size(image.height, image.width)


def fit(image: Image.Image, size: Size) -> Tensor:
    """Scale to cover the size, cut the middle out: [3, height, width], 0 to 1."""
    if source_size(image) != size:
        image = ImageOps.fit(image, (size.width, size.height), Image.Resampling.LANCZOS)
    return to_pixels(image)


def to_pixels(image: Image.Image) -> Tensor:
    """A Pillow image of eight bits as a tensor [channels, height, width], 0 to 1."""
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1).float() / 255


def checksum(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
