"""A folder of local copies of remote shards, shared by all processes of a machine and kept below a size."""

import errno
import hashlib
import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from fsspec.callbacks import Callback

from dataset_tools.sources import COMMAND, connect, one_line

STALE_S = 120.0  # a download that has not grown for so long belongs to a process that died
CHUNK_BYTES = 1 << 20


class CacheError(Exception):
    """The folder cannot take copies. No OSError: it is no fault of a shard, and ends the run."""


class Copy(NamedTuple):
    """An open local copy, and whether it had to be fetched."""

    file: BinaryIO
    is_new: bool


class Cache:
    """The copies in a folder. Before a download those used longest ago make room for it.

    limit_bytes: of all copies and downloads under way; these alone may be larger than that: they do not wait
    for each other.
    """

    def __init__(self, folder: Path, limit_bytes: int):
        self.folder, self.limit_bytes = folder, limit_bytes

    def open(self, url: str) -> Copy:
        """The copy of a remote shard, fetched if there is none of its present size; one attempt.

        Raises what the file system of the URL does, OSError when less comes than expected, CacheError.
        """
        is_new = False
        while True:
            path, is_fetched = self._path(url)
            is_new |= is_fetched
            with suppress(FileNotFoundError):  # another process needed the room just now
                file = path.open("rb")
                touch(path)
                return Copy(file, is_new)

    def _path(self, url: str) -> tuple[Path, bool]:
        """Where the copy is, and whether it was fetched now."""
        name, size = hashlib.sha256(url.encode()).hexdigest()[:16], _size(url)
        copy, part = self.folder / f"{name}-{size}.tar", self.folder / f"{name}-{size}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while not copy.exists():
                if not _claim(part):
                    time.sleep(0.1)
                elif copy.exists():  # another process has finished it between the two questions
                    part.unlink()
                else:
                    self._download(url, size, part, copy)
                    return copy, True
        except OSError as error:
            raise self._explained(error, url, size) from error
        return copy, False

    def _download(self, url: str, size: int | None, part: Path, copy: Path) -> None:
        try:
            self._make_room(size or 0, part)
            if url.startswith(COMMAND):
                self._run(url.removeprefix(COMMAND), part)
            elif size is None:
                file_system, path = connect(url)
                with file_system.open(path, "rb") as source:
                    self._copy(source, part)
            else:
                file_system, path = connect(url)
                file_system.get_file(path, str(part), callback=_AtMost(size))
                if part.stat().st_size != size:
                    raise OSError(f"got {part.stat().st_size} of {size} bytes")
            os.replace(part, copy)
            if size is None:
                self._make_room(0, copy)
        finally:
            part.unlink(missing_ok=True)

    def _run(self, command: str, part: Path) -> None:
        """Write what a command puts out into `part`. Raises OSError when it fails."""
        with tempfile.TemporaryFile() as complaints:
            with subprocess.Popen(
                command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
            ) as process:
                assert process.stdout is not None
                try:
                    self._copy(process.stdout, part)
                except OSError:
                    process.kill()
                    raise
            if process.returncode:
                complaints.seek(0)
                last = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise OSError(f"exit status {process.returncode}: {last[:200] or 'nothing was said'}")

    def _copy(self, source: IO[bytes], part: Path) -> None:
        """Copy what has no size that is known, unless it has no end either."""
        num_bytes = 0
        with part.open("wb") as target:
            while data := source.read(CHUNK_BYTES):
                num_bytes += len(data)
                if num_bytes > self.limit_bytes:
                    raise OSError("it is larger than all that data.cache_gb allows for")
                target.write(data)
            if not part.exists() or not os.path.samestat(part.stat(), os.fstat(target.fileno())):
                raise OSError("it was quiet for so long that another process began anew")

    def _make_room(self, num_bytes: int, keep: Path) -> None:
        """Delete the copies used longest ago until there is room for as many bytes more."""
        copies, excess = [], num_bytes - self.limit_bytes
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process was faster
                if path.suffix == ".part" and not path.exists():  # it has just become a copy
                    path = path.with_suffix(".tar")
                found = path.stat()
                if path.suffix == ".tar":
                    copies.append((found.st_mtime, found.st_size, path))
                    excess += found.st_size
                elif path.suffix == ".part" and path != keep:
                    if _is_left(found):
                        path.unlink()
                        continue
                    expected = path.stem.rpartition("-")[2]
                    excess += int(expected) if expected.isdecimal() else found.st_size
        for _, size, path in sorted(copies):
            if excess > 0 and path != keep:
                with suppress(OSError):  # Windows keeps a file that a process has open
                    path.unlink()
                    excess -= size

    def _explained(self, error: OSError, url: str, size: int | None) -> Exception:
        """A fault of the folder as such; any other error as it is."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"{size / 1e9:.3g} GB of {url}" if size is not None else url
            return CacheError(
                f"data.cache_dir: {self.folder} has no space left for {what}; make room there, name a folder"
                f" on another disk, or lower data.cache_gb ({self.limit_bytes / 1e9:g})"
            )
        if error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(self.folder):
            if isinstance(error, FileNotFoundError):  # another process took the download for dead
                return OSError(f"{one_line(error)} was taken away")
            return CacheError(f"data.cache_dir: {self.folder} cannot be written to: {one_line(error)}")
        return error


class _AtMost(Callback):
    """Stops a download that brings more than was announced, perhaps without end."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__()
        self.limit = num_bytes

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self.limit:
            raise OSError(f"got more than its {self.limit} bytes")


def touch(path: Path | str) -> None:
    """Note that a copy is in use, unless it was evicted meanwhile."""
    with suppress(OSError):
        os.utime(path)


def is_evicted(file: BinaryIO) -> bool:
    """Whether an open file has no name any more: its space is free once it is closed."""
    return os.fstat(file.fileno()).st_nlink == 0


def _size(url: str) -> int | None:
    """In bytes; None where nobody knows."""
    if url.startswith(COMMAND):
        return None
    file_system, path = connect(url)
    return file_system.size(path)


def _claim(part: Path) -> bool:
    """Create the file of a download; False when another process is downloading into it."""
    try:
        part.touch(exist_ok=False)
        return True
    except FileExistsError:
        with suppress(FileNotFoundError):  # just finished
            if _is_left(part.stat()):
                part.unlink()
        return False


def _is_left(found: os.stat_result) -> bool:
    return time.time() - found.st_mtime > STALE_S
