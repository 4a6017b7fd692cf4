"""What people would write instead of dataset_tools: webdataset, Pillow and torchvision."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import webdataset  # of the development packages
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from dataset_tools.buckets import Buckets, Size, cover

Transform = Callable[[Size, Size], Callable[[Image.Image], Tensor]]
"""Makes what turns a picture into pixels, of the (height, width) px to shrink to and those of the bucket."""


def on_tensors(size: Size, bucket: Size) -> v2.Compose:
    """8-bit pixels. torchvision recommends transforms v2 on uint8 tensors as the fastest."""
    return v2.Compose([v2.ToImage(), v2.Resize(size, antialias=True), v2.CenterCrop(bucket)])


def on_pictures(size: Size, bucket: Size) -> v2.Compose:
    """8-bit pixels, resized by Pillow."""
    return v2.Compose([v2.Resize(size), v2.CenterCrop(bucket), v2.ToImage()])


def to_numbers(size: Size, bucket: Size) -> v2.Compose:
    """Normalised pixels: torchvision's "Performance considerations" to the end."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    numbers = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, deviation)]
    return v2.Compose([on_tensors(size, bucket), *numbers])


def plain_batches(
    shard: Path, buckets: Buckets, batch_size: int, transform: Transform
) -> Iterator[tuple[Tensor, list[str]]]:
    """Batches of pictures of one bucket each, and their captions."""
    waiting: dict[Size, list[tuple[Tensor, str]]] = {}
    samples = webdataset.WebDataset([str(shard)], shardshuffle=False).decode("pilrgb")
    for image, caption, _ in samples.to_tuple("jpg", "txt", "json"):
        picture = (image.height, image.width)
        bucket = buckets.nearest(*picture)
        pixels = transform(cover(picture, bucket), bucket)(image)
        found = waiting.setdefault(bucket, [])
        found.append((pixels, caption))
        if len(found) == batch_size:
            yield torch.stack([pixels for pixels, _ in found]), [caption for _, caption in found]
            found.clear()
    for found in waiting.values():
        if found:
            yield torch.stack([pixels for pixels, _ in found]), [caption for _, caption in found]
