"""Shards made on the spot."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from tests.unit.dataset_tools.pack_cases import save

Members = Iterable[tuple[str, bytes]]  # (name, content)
Size = tuple[int, int]  # (width, height) px


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def tar(path: Path, members: Members) -> Path:
    """A shard with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def make_tar() -> Callable[[Path, Members], Path]:
    return tar


@pytest.fixture
def make_png() -> Callable[[int, int, tuple[int, int, int]], bytes]:
    return png


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """Write shards of pictures 000, 001, …; picture n has the colour (n, 255 - n, 7) and the caption "n".

    counts: samples per shard. sizes: (width, height) px, taken in turn. with_facts: width and height are in
    the json, as `pack` writes them; otherwise only n and its parity are.
    """

    def make(
        counts: Iterable[int], sizes: Iterable[tuple[int, int]] = ((16, 16),), with_facts: bool = True
    ) -> Path:
        number = 0
        sizes = list(sizes)
        for shard, count in enumerate(counts):
            members = []
            for _ in range(count):
                width, height = sizes[number % len(sizes)]
                facts = {"number": number, "parity": ("even", "odd")[number % 2]}
                if with_facts:
                    facts |= {"width_px": width, "height_px": height}
                colour = (number % 256, 255 - number % 256, 7)
                members += [
                    (f"{number:03}.png", png(width, height, colour)),
                    (f"{number:03}.txt", str(number).encode()),
                    (f"{number:03}.json", json.dumps(facts).encode()),
                ]
                number += 1
            tar(tmp_path / "shards" / f"{shard:06}.tar", members)
        return tmp_path / "shards"

    return make


@pytest.fixture
def photos(tmp_path):
    """Twelve pictures with captions, in two folders."""
    folder = tmp_path / "photos"
    for n in range(12):
        name = f"{'sub/' if n % 2 else ''}p{n:02d}"
        save(folder / f"{name}.png", seed=n)
        (folder / f"{name}.txt").write_text(f"caption {n}\n")
    return folder


@pytest.fixture
def memory():
    """A file system that stands for s3 and the like: it is reached through fsspec only."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)
