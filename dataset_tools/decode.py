"""From the bytes of a picture to the pixels of its bucket: decode, resize, crop, flip; in the workers."""

from collections.abc import Callable
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset_tools.buckets import Size, cover
from dataset_tools.images import MAX_MEGAPIXELS, open_image

Place = tuple[int, int]  # (top, left) of a crop in px


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
    Returns uint8 [3, *bucket]. Raises UnusableError when the picture cannot be decoded or has another size.
    """
    height, width = cover(picture, bucket)
    image = open_image(data, (width, height), claimed=picture[::-1], max_megapixels=max_megapixels)
    pixels = torch.from_numpy(np.array(image))  # [H, W, 3]
    pixels = fit(pixels.permute(2, 0, 1), bucket, crop, rng)
    return (pixels.flip(2) if rng.random() < flip else pixels).contiguous()


def fit(pixels: Tensor, bucket: Size, crop: str, rng: Random) -> Tensor:
    """Resize (bilinear, antialiased) so that the bucket is covered, then crop to it.

    pixels: [3, H, W], uint8 or float. Returns [3, *bucket] of the same type.
    """
    size = cover((pixels.shape[1], pixels.shape[2]), bucket)
    if size != tuple(pixels.shape[1:]):
        pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    top, left = CROPS[crop](pixels, bucket, rng)
    return pixels[:, top : top + bucket[0], left : left + bucket[1]]


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
