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

from dataset_tools.room import Room
from dataset_tools.sources import COMMAND, connect, one_line

CHUNK_BYTES = 1 << 20
POLL_S = 0.1  # between two looks at what others do


class CacheError(Exception):
    """The folder cannot take copies. No OSError: it is no fault of a shard, and ends the run."""


class Copy(NamedTuple):
    """An open local copy, and whether it had to be fetched."""

    file: BinaryIO
    is_new: bool


class Cache:
    """The copies in a folder. Before a download those used longest ago make room for it.

    limit_bytes: of all copies and downloads under way, of all processes of a machine. A download waits while
    others leave it no room; one that is larger than all of it waits until it is the only one.
    """

    def __init__(self, folder: Path, limit_bytes: int):
        self.folder, self.limit_bytes = folder, limit_bytes
        self.room = Room(folder, limit_bytes)
        self._usual_bytes = 0  # of shards whose sizes nobody tells: what the largest so far had

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
        reserved = self._usual_bytes if size is None else size
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while not copy.exists():
                if not self.room.claim(part, reserved):
                    time.sleep(POLL_S)
                    continue
                try:
                    self._download(url, size, part, reserved)
                    return copy, True
                except _NoRoomError as error:  # next time it has more from the beginning, at last all
                    reserved = min(2 * error.num_bytes, self.limit_bytes)
        except OSError as error:
            raise self._explained(error, url, size) from error
        return copy, False

    def _download(self, url: str, size: int | None, part: Path, reserved: int) -> None:
        """Fetch a shard into the file that was claimed for it. Raises OSError, _NoRoomError."""
        try:
            if url.startswith(COMMAND):
                self._run(url.removeprefix(COMMAND), part, reserved)
            elif size is None:
                file_system, path = connect(url)
                with file_system.open(path, "rb") as source:
                    self._copy(source, part, reserved)
            else:
                file_system, path = connect(url)
                file_system.get_file(path, str(part), callback=_AtMost(size))
                if part.stat().st_size != size:
                    raise OSError(f"got {part.stat().st_size} of {size} bytes")
            self.room.finish(part)
        finally:
            part.unlink(missing_ok=True)

    def _run(self, command: str, part: Path, reserved: int) -> None:
        """Write what a command puts out into `part`. Raises OSError when it fails, _NoRoomError."""
        with tempfile.TemporaryFile() as complaints:
            with subprocess.Popen(
                command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
            ) as process:
                assert process.stdout is not None
                try:
                    self._copy(process.stdout, part, reserved)
                except (OSError, _NoRoomError):
                    process.kill()
                    raise
            if process.returncode:
                complaints.seek(0)
                last = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise OSError(f"exit status {process.returncode}: {last[:200] or 'nothing was said'}")

    def _copy(self, source: IO[bytes], part: Path, reserved: int) -> None:
        """Copy what has no size that is known, unless it has no end either. Raises OSError, _NoRoomError."""
        num_bytes = 0
        with part.open("r+b") as target:
            while data := source.read(CHUNK_BYTES):
                num_bytes += len(data)
                if num_bytes > self.limit_bytes:
                    raise OSError("it is larger than all that data.cache_gb allows for")
                if num_bytes > reserved and not (reserved := self.room.extend(target, part, num_bytes)):
                    raise _NoRoomError(num_bytes)  # if it waited for others here, they might wait for it
                target.write(data)
            target.truncate(num_bytes)
            if not part.exists() or not os.path.samestat(part.stat(), os.fstat(target.fileno())):
                raise OSError("it was quiet for so long that another process began anew")
        self._usual_bytes = max(self._usual_bytes, num_bytes)

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


class _NoRoomError(Exception):
    """Other downloads leave no room for the rest of one of unknown size. num_bytes: that it has to have."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(num_bytes)
        self.num_bytes = num_bytes


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
