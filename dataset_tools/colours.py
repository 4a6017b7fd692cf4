"""From every pixel format of Pillow to 8-bit sRGB."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 1 << 22
"""A longer colour profile is passed over; the transforms made last are kept in memory with theirs."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded picture to mode RGB: deep pixels scaled, transparent places white, colours sRGB.

    Raises what Pillow raises for a mode that it cannot convert.
    """
    return _to_srgb(_on_white(_to_8_bit(image)), _profile(image))


def is_srgb(image: Image.Image) -> bool:
    """Whether to_rgb would return the picture (open, perhaps not decoded) as it is."""
    profile = _profile(image)
    is_plain = image.mode == "RGB" and not image.has_transparency_data
    return is_plain and (not profile or _transform(profile, "RGB") is None)


def _profile(image: Image.Image) -> bytes | None:
    """The embedded colour profile, if it is to be heeded."""
    profile = image.info.get("icc_profile")
    return profile if profile and len(profile) <= MAX_PROFILE_BYTES else None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey pixels of 16 or 32 bits, or floating point, to mode L; Pillow's convert would clip them.

    Integers of up to 16 bits count as 16-bit. Floating point counts as 0 to 1, or to 255 or 65535 when it
    goes beyond.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    pixels = np.array(image, dtype=np.float32)
    np.nan_to_num(pixels, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    peak = float(pixels.max())
    white = next((white for white in whites if peak <= white), peak)
    clear = image.info.get("transparency")
    is_opaque = pixels != clear if isinstance(clear, int) else None
    pixels.clip(0, white, out=pixels)
    pixels *= np.float32(255.0 / white)
    grey = Image.fromarray(np.rint(pixels, out=pixels).astype(np.uint8))
    if is_opaque is not None:  # a 16-bit PNG can name one grey level as transparent
        opaque = Image.fromarray(is_opaque.astype(np.uint8) * np.uint8(255))
        grey = Image.merge("LA", (grey, opaque))
    return grey


def _on_white(image: Image.Image) -> Image.Image:
    """Lay a picture with transparency on white; others pass unchanged."""
    if not image.has_transparency_data:
        return image
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to RGB through the embedded colour profile, or plainly where there is none that fits."""
    if image.mode in ("P", "PA", "1"):
        image = image.convert("RGB")
    if image.mode == "LAB":  # which Pillow alone cannot convert
        profile = _LAB
    transform = _transform(profile, image.mode) if profile else None
    converted = ImageCms.applyTransform(image, transform) if transform else image.convert("RGB")
    assert converted is not None  # None only when applied in place
    return converted


_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB; None where plain conversion is right (sRGB) or the profile is no use."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        return ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):  # damaged, or of another colour space than the pixels
        return None
