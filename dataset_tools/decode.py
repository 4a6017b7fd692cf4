"""From the bytes of a picture to the pixels of its bucket: decode, resize, crop, flip; in the workers."""

from collections.abc import Callable
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from dataset_tools.arrays import between_two
from dataset_tools.buckets import Size, cover
from dataset_tools.images import MAX_MEGAPIXELS, read_pixels

Place = tuple[int, int]  # (top, left) of a crop in px

TWO_TAPS = 1.4
"""Up to this factor pictures of 8 bits are shrunk by bilinear interpolation between two pixels, beyond it by
as many as an antialiased filter asks for. Below it photographs come out nearer to an ideal filter's than with
the antialiased one, which blurs more than it has to, and in half the time; beyond it aliasing begins to
show."""


def decode(
    data: bytes,
    picture: Size,
    bucket: Size,
    crop: str,
    flip: float,
    rng: Random,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Tensor:
    """Decode a picture of any format, resize it to cover its bucket and crop the rest away.

    picture: its (height, width) px by the header. crop: one of CROPS. flip: chance of mirroring left and
    right. rng: decides all that is random, so that one picture always comes out the same.
    Returns uint8 [3, *bucket], whose memory goes pixel by pixel ([H, W, 3]); dataset_tools.rows.stacked makes
    plain batches of such. Raises UnusableError when the picture cannot be decoded or has another size.
    """
    height, width = cover(picture, bucket)
    pixels = read_pixels(data, (width, height), claimed=picture[::-1], max_megapixels=max_megapixels)
    cropped = fit(torch.from_numpy(pixels).permute(2, 0, 1), bucket, crop, rng)
    return cropped.flip(2) if rng.random() < flip else cropped


def fit(pixels: Tensor, bucket: Size, crop: str, rng: Random) -> Tensor:
    """Resize so that the bucket is covered, then crop to it.

    pixels: [3, H, W], uint8, resized as TWO_TAPS says; or float32, which an antialiased bilinear filter
    resizes whatever the factor, as published. Returns [3, *bucket] of the same type.
    """
    size = cover((pixels.shape[1], pixels.shape[2]), bucket)
    if size != tuple(pixels.shape[1:]):
        pixels = _resized(pixels, size)
    top, left = CROPS[crop](pixels, bucket, rng)
    return pixels[:, top : top + bucket[0], left : left + bucket[1]]


def _resized(pixels: Tensor, size: Size) -> Tensor:
    factor = max(pixels.shape[1] / size[0], pixels.shape[2] / size[1])
    if factor > TWO_TAPS or pixels.dtype != torch.uint8:
        return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    return torch.from_numpy(between_two(pixels.permute(1, 2, 0).numpy(), size)).permute(2, 0, 1)


def _center(pixels: Tensor, bucket: Size, rng: Random) -> Place:
    return round((pixels.shape[1] - bucket[0]) / 2), round((pixels.shape[2] - bucket[1]) / 2)


def _random(pixels: Tensor, bucket: Size, rng: Random) -> Place:
    return rng.randint(0, pixels.shape[1] - bucket[0]), rng.randint(0, pixels.shape[2] - bucket[1])


def _smart(pixels: Tensor, bucket: Size, rng: Random) -> Place:
    """Where the most detail is: the window with the largest sum of brightness differences."""
    grey = pixels.float().mean(0)  # [H, W]
    across, down = grey.diff(dim=1).abs().sum(0), grey.diff(dim=0).abs().sum(1)
    return _busiest(down, bucket[0] - 1), _busiest(across, bucket[1] - 1)


def _busiest(detail: Tensor, length: int) -> int:
    """Start of the window of this length with the largest sum; the middle one of equals."""
    if length < 1:
        return 0
    sums = detail.unfold(0, length, 1).sum(1)
    best = (sums == sums.max()).nonzero().flatten()
    return int(best[len(best) // 2])


CROPS: dict[str, Callable[[Tensor, Size, Random], Place]] = {
    "center": _center,
    "random": _random,
    "smart": _smart,
}
