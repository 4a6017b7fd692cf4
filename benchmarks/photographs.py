"""Photographs to measure the reading of data with: of scikit-image, in JPEGs of several shapes."""

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_tools.shards import ShardWriter

QUALITY = 90
CAPTION = "a photograph of something"


def photographs(sizes: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """JPEG files of these (width, height) px: cuts of the pictures, with a little noise, which enlarging them
    took away."""
    from skimage import data  # of the development packages

    sources = [
        data.astronaut(),
        data.coffee(),
        data.chelsea(),
        data.rocket(),
        data.retina(),
        data.hubble_deep_field(),
    ]
    chance = np.random.default_rng(0)
    for index, (width, height) in enumerate(sizes):
        picture = Image.fromarray(sources[index % len(sources)])
        scale = min(picture.width / width, picture.height / height) * chance.uniform(0.6, 0.75)
        across, down = width * scale, height * scale
        left, top = chance.uniform(0, picture.width - across), chance.uniform(0, picture.height - down)
        box = (left, top, left + across, top + down)
        enlarged = picture.resize((width, height), Image.Resampling.BICUBIC, box)
        noisy = np.asarray(enlarged, dtype=np.float32) + chance.normal(0, 3, (height, width, 3))
        file = BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
        yield file.getvalue()


def write_shard(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """One shard of such photographs, as `pack` writes it; returns its path."""
    with ShardWriter(folder) as writer:
        for index, ((width, height), data) in enumerate(zip(sizes, photographs(sizes), strict=True)):
            writer.write(f"{index:09d}", data, "jpg", CAPTION, {"width_px": width, "height_px": height})
    return folder / "000000.tar"
