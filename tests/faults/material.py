"""Shards of small pictures for runs and readers that are killed."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_shards(folder: Path, counts: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Write shards of pictures: a colour and some noise each. Returns the keys.

    counts: samples per shard. sizes: (width, height) px, taken in turn.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    keys = []
    for shard, count in enumerate(counts):
        with tarfile.open(folder / f"{shard:06}.tar", "w") as tar:
            for number in range(count):
                keys.append(f"{shard:03}{number:03}")
                _add(tar, keys[-1], sizes[len(keys) % len(sizes)], rng)
    return keys


def _add(tar: tarfile.TarFile, key: str, size: tuple[int, int], rng: np.random.Generator) -> None:
    width, height = size
    pixels = rng.uniform(0, 255, 3) + rng.normal(0, 20, (height, width, 3))
    picture = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(picture, "PNG")
    facts = json.dumps({"width_px": width, "height_px": height}).encode()
    members = {"png": picture.getvalue(), "txt": f"a red [mine] {key[-1]}".encode(), "json": facts}
    for ending, data in members.items():
        info = tarfile.TarInfo(f"{key}.{ending}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
