"""Writing shards: identical bytes for identical samples, and never half a file under a shard's name."""

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from modules.whole_files import named, settle, write_whole

INDEX_NAME = "index.json"


class ShardLimits(NamedTuple):
    """When a shard is full. One sample that is larger than `max_bytes` gets a shard of its own."""

    max_samples: int = 1000
    max_bytes: int = 1 << 30
    """Of the tar file, headers and padding included."""


class ShardInfo(NamedTuple):
    """What the index says about a shard."""

    name: str
    samples: int
    bytes: int
    sha256: str
    sizes: dict[str, int]
    """How many pictures have each size, such as {"640x480": 12}."""


def sample_members(image: bytes, ext: str, caption: str | None, facts: Mapping[str, Any]) -> dict[str, bytes]:
    """Return a sample's members, extension to content, in the order in which a shard holds them.

    facts: plain data for the `.json` member; must hold width_px and height_px. Raises ValueError when a
    value is not plain data.
    """
    members = {ext: image}
    if caption is not None:
        members["txt"] = caption.encode("utf-8", "backslashreplace")
    try:
        text = json.dumps(dict(facts), ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"facts are not plain data: {error}") from error
    return members | {"json": text.encode("utf-8", "backslashreplace")}


class Shard:
    """A tar file being written under a temporary name; `finish` gives it its own."""

    def __init__(self, path: Path, limits: ShardLimits):
        """path: `<folder>/<name>.tar`; the folder must exist."""
        self._path = path
        self._limits = limits
        self._sizes: Counter[str] = Counter()
        self._samples = 0
        self._content_bytes = 0
        self._file = _HashingFile(_temporary(path))
        self._tar = tarfile.open(fileobj=self._file, mode="w|", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def fits(self, members: Mapping[str, bytes]) -> bool:
        """Say whether a sample still fits; the first always does."""
        size = _tar_size(self._content_bytes + _members_size(members))
        full = self._samples >= self._limits.max_samples or size > self._limits.max_bytes
        return self._samples == 0 or not full

    def add(self, key: str, members: Mapping[str, bytes], size_px: tuple[int, int]) -> None:
        """Append a sample. key: unique over the data set and free of dots. size_px: (width, height)."""
        with named(self._path):
            for ext, data in members.items():
                header = tarfile.TarInfo(f"{key}.{ext}")  # owner, group and time are 0
                header.size = len(data)
                self._tar.addfile(header, io.BytesIO(data))
        self._samples += 1
        self._content_bytes += _members_size(members)
        self._sizes[f"{size_px[0]}x{size_px[1]}"] += 1

    def finish(self) -> ShardInfo:
        """Close the tar, give it its name, and return what the index says about it.

        Leaves nothing when that fails.
        """
        try:
            with named(self._path):
                self._tar.close()
                self._file.close()
                os.replace(_temporary(self._path), self._path)
        except BaseException:
            self.discard()
            raise
        return ShardInfo(
            name=self._path.name,
            samples=self._samples,
            bytes=self._path.stat().st_size,
            sha256=self._file.sha256.hexdigest(),
            sizes=dict(sorted(self._sizes.items())),
        )

    def discard(self) -> None:
        """Remove what was written."""
        for file in (self._tar, self._file):
            with suppress(OSError):  # a full disk does not take the end either
                file.close()
        _temporary(self._path).unlink(missing_ok=True)


class ShardWriter:
    """Writes samples to `<folder>/000000.tar` and on, then the index; nothing of an index before `close`."""

    def __init__(self, folder: Path, limits: ShardLimits = ShardLimits()):  # noqa: B008 (immutable)
        self._folder = folder
        self._limits = limits
        self._infos: list[ShardInfo] = []
        self._keys: set[str] = set()
        self._shard: Shard | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX_NAME).unlink(missing_ok=True)

    def write(self, key: str, image: bytes, ext: str, caption: str | None, facts: Mapping[str, Any]) -> None:
        """Append one encoded picture. Raises ValueError for a key that has a dot or was used before."""
        if "." in key or key in self._keys:
            raise ValueError(
                f"sample key {key!r} has a dot or was used before; keys are unique and without dots"
            )
        self._keys.add(key)
        members = sample_members(image, ext, caption, facts)
        if self._shard and not self._shard.fits(members):
            self._infos.append(self._shard.finish())
            self._shard = None
        if self._shard is None:
            self._shard = Shard(self._folder / shard_name(len(self._infos)), self._limits)
        self._shard.add(key, members, (facts["width_px"], facts["height_px"]))

    def close(self) -> None:
        """Finish the last shard, remove those that a larger data set has left behind, and write the index."""
        if self._shard:
            self._infos.append(self._shard.finish())
            self._shard = None
        number = len(self._infos)
        while (older := self._folder / shard_name(number)).exists():  # training would read it
            older.unlink()
            number += 1
        write_index(self._folder, self._infos)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._shard:
            self._shard.discard()


def shard_name(number: int) -> str:
    """Return the file name of a data set's shard, counted from 0."""
    return f"{number:06d}.tar"


def write_index(folder: Path, infos: Iterable[ShardInfo]) -> None:
    """Write `index.json`: totals, and name, samples, bytes, checksum and picture sizes of each shard."""
    infos = list(infos)
    totals = {
        "version": 1,
        "samples": sum(info.samples for info in infos),
        "bytes": sum(info.bytes for info in infos),
    }
    lines = ",\n".join(json.dumps(info._asdict()) for info in infos)  # one per shard: readable, and short
    write_whole(folder / INDEX_NAME, json.dumps(totals)[:-1] + f', "shards": [\n{lines}\n]}}\n')


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _members_size(members: Mapping[str, bytes]) -> int:
    """Return the bytes that members take in a tar: a header block and the content in whole blocks each."""
    return sum(tarfile.BLOCKSIZE * (1 + -(-len(data) // tarfile.BLOCKSIZE)) for data in members.values())


def _tar_size(content_bytes: int) -> int:
    """Return the size of a tar file: content, two empty blocks, padded to whole records."""
    return -(-(content_bytes + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


class _HashingFile(io.BufferedWriter):
    """A file for writing that knows the checksum of what went through it."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path, "wb"))
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            settle(self)
        super().close()
