"""Aspect-ratio buckets: pictures of like shape are resized to one size, so that they can share a batch."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Generic, TypeVar

Size = tuple[int, int]  # (height, width) in px
Item = TypeVar("Item")

# Width : height of the released trainings; Buckets adds the inverses.
RELEASED_RATIOS = ("1/1", "1/2", "1/3", "2/3", "3/4", "1/5", "2/5", "3/5", "4/5", "1/6", "5/6", "9/16")


def parse_ratio(ratio: str | float) -> float:
    """Width over height of "3/4", "1.5" or 0.75. Raises ValueError for anything else or nothing positive."""
    try:
        value = float(Fraction(str(ratio)))
    except (ValueError, ArithmeticError):  # divided by zero, or beyond all bounds
        value = 0.0
    if value <= 0:
        raise ValueError(f'data.aspect_ratios: {ratio!r} is no ratio width/height; write for instance "3/4"')
    return value


class Buckets:
    """The picture sizes of a training: one per aspect ratio, all of about the same area.

    area_px: pixels of a picture, never exceeded. ratios: width/height as parse_ratio reads them. multiple_px:
    both sides of every bucket are multiples of it (the compressor's factor). with_inverses: add 1/ratio of
    every ratio that the list lacks. The caller's list is left as it is.
    Raises ValueError when a bucket would have no pixels or no ratio is given.
    """

    def __init__(
        self,
        area_px: int,
        ratios: Sequence[str | float] = RELEASED_RATIOS,
        multiple_px: int = 32,
        with_inverses: bool = True,
    ):
        self.ratios = [parse_ratio(ratio) for ratio in ratios]
        if not self.ratios:
            raise ValueError("data.aspect_ratios: empty; give at least one, for instance 1/1")
        if with_inverses:
            for ratio in tuple(self.ratios):
                if not any(math.isclose(1 / ratio, other) for other in self.ratios):
                    self.ratios.append(1 / ratio)
        self.sizes: list[Size] = [
            (_floor(math.sqrt(area_px / ratio), multiple_px), _floor(math.sqrt(area_px * ratio), multiple_px))
            for ratio in self.ratios
        ]
        for ratio, size in zip(self.ratios, self.sizes, strict=True):
            if 0 in size:
                raise ValueError(
                    f"data.aspect_ratios: {ratio:.4g} leaves no pixels in multiples of {multiple_px} px "
                    f"at {area_px} px a picture; drop it, or enlarge data.image_size_px"
                )

    def nearest(self, height: int, width: int) -> Size:
        """The bucket whose nominal width/height is nearest to the picture's; the first of equals."""
        return self.sizes[min(range(len(self.ratios)), key=lambda i: abs(width / height - self.ratios[i]))]


def _floor(length: float, multiple: int) -> int:
    return int(length // multiple) * multiple


def cover(picture: Size, bucket: Size) -> Size:
    """The smallest size of the picture's own shape that covers the bucket; the rest is cropped away.

    The short side is rounded up and the long side down, which still covers.
    """
    (height, width), (bucket_height, bucket_width) = picture, bucket
    short = min(picture)
    # Integer ceiling of short · max(bucket_height / height, bucket_width / width).
    short = max(-(-short * bucket_height // height), -(-short * bucket_width // width))
    return (short, short * width // height) if height <= width else (short * height // width, short)


class Batcher(Generic[Item]):
    """Collects samples by bucket until one of them holds a batch; what is left waits for more."""

    def __init__(self, sizes: Iterable[Size], batch_size: int):
        self.batch_size = batch_size
        self.waiting: dict[Size, list[Item]] = {size: [] for size in sizes}

    def add(self, bucket: Size, item: Item) -> None:
        self.waiting[bucket].append(item)

    def pop(self) -> tuple[Size, list[Item]] | None:
        """The first full batch in the order of the buckets (samples in the order they came), or None."""
        for bucket, items in self.waiting.items():
            if len(items) >= self.batch_size:
                batch, self.waiting[bucket] = items[: self.batch_size], items[self.batch_size :]
                return bucket, batch
        return None

    def pop_rest(self) -> list[Item]:
        """What waits in the first bucket that has any, fewer than a batch; empty when nothing waits."""
        for bucket, items in self.waiting.items():
            if items:
                self.waiting[bucket] = []
                return items
        return []
