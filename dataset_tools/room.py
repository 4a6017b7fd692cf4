"""Who may take how much of a folder of copies, agreed on by all processes of a machine."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dataset_tools.locks import locked

STALE_S = 120.0  # a download that has not grown for so long belongs to a process that died


class Room:
    """Room for so many bytes of copies (NAME-SIZE.tar) and of downloads under way (NAME-SIZE.part).

    A download has all its bytes reserved from its beginning: SIZE, or its file's length where SIZE is None.
    One that waits has no file. One that is alone may be larger than the limit.
    """

    def __init__(self, folder: Path, limit_bytes: int):
        self.folder, self.limit_bytes = folder, limit_bytes

    def claim(self, part: Path, num_bytes: int) -> bool:
        """Make the file of a download, and room for it at the cost of the copies used longest ago.

        False when another process has the download or its copy, or while other downloads leave no room.
        """
        with self._alone():
            others = self._under_way()
            taken = sum(others.values())
            if part in others or part.with_suffix(".tar").exists():
                return False
            if others and taken + num_bytes > self.limit_bytes:
                return False
            self._evict(taken + num_bytes)
            with suppress(FileExistsError), part.open("xb") as file:  # where there are no locks
                if _size(part) is None:
                    file.truncate(num_bytes)
                return True
            return False

    def extend(self, file: BinaryIO, part: Path, num_bytes: int) -> int:
        """Reserve so many bytes, and some more if there is room, for a download of unknown size.

        file: `part`, open. Returns the bytes that it has now; 0 when others leave no room.
        """
        with self._alone():
            taken = sum(taken for path, taken in self._under_way().items() if path != part)
            room = self.limit_bytes - taken
            if num_bytes > room:
                return 0
            reserved = min(num_bytes + num_bytes // 4, room)  # so it need not ask for every chunk
            self._evict(taken + reserved)
            file.truncate(reserved)
            return reserved

    def finish(self, part: Path) -> None:
        """Make a copy of a download."""
        with self._alone():  # who counts sees one of the two
            os.replace(part, part.with_suffix(".tar"))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes and threads from changing what is reserved."""
        with self._lock() as file, locked(file):
            yield

    def _lock(self) -> BinaryIO:
        path = self.folder / "lock"
        try:
            return path.open("ab")  # some file systems lock only what may be written
        except PermissionError:
            if not path.exists():
                raise
            return path.open("rb")  # another user has made it; the folder is for both

    def _under_way(self) -> dict[Path, int]:
        """The bytes reserved by each download; those that dead processes left are removed."""
        reserved: dict[Path, int] = {}
        for path in self.folder.glob("*.part"):
            with suppress(FileNotFoundError):  # it has just failed
                found = path.stat()
                if time.time() - found.st_mtime > STALE_S:
                    path.unlink()
                else:
                    size = _size(path)
                    reserved[path] = found.st_size if size is None else size
        return reserved

    def _evict(self, num_bytes: int) -> None:
        """Delete the copies used longest ago until there is room for so many bytes beside them."""
        copies = []
        for path in self.folder.glob("*.tar"):
            with suppress(FileNotFoundError):
                found = path.stat()
                copies.append((found.st_mtime, found.st_size, path))
        excess = num_bytes + sum(size for _, size, _ in copies) - self.limit_bytes
        for _, size, path in sorted(copies):
            if excess > 0:
                with suppress(OSError):  # Windows keeps a file that a process has open
                    path.unlink()
                    excess -= size


def _size(part: Path) -> int | None:
    """What a download will have in the end, by its name; None where nobody knows."""
    size = part.stem.rpartition("-")[2]
    return int(size) if size.isdecimal() else None
