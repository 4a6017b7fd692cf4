"""Checksums by which files are known to be what was released."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

AT_ONCE = 1 << 20  # bytes


@dataclass(frozen=True)
class Sum:
    """What a file's checksum must be: SHA-256, or the beginning of one; or git's SHA-1, of small files.

    Hubs name large files by SHA-256 and the others as git does: by the SHA-1 of length and content.
    """

    digits: str
    is_git: bool = False

    def hasher(self, size: int) -> "hashlib._Hash":
        """To be fed with the content of a file of that size."""
        return hashlib.sha1(b"blob %d\0" % size) if self.is_git else hashlib.sha256()

    def holds(self, found: str) -> bool:
        """Whether a whole checksum is the one that is expected."""
        return found.startswith(self.digits)

    def of(self, path: Path, on_bytes: Callable[[int], None] = lambda count: None) -> str:
        """The checksum of a file."""
        hasher = self.hasher(path.stat().st_size)
        with path.open("rb") as file:
            while block := file.read(AT_ONCE):
                hasher.update(block)
                on_bytes(len(block))
        return hasher.hexdigest()


def sum_named(etag: str) -> Sum | None:
    """The sum that a hub's name of a file's content is; None for any other name."""
    known = set(etag) <= set("0123456789abcdef")
    if known and len(etag) == 64:
        return Sum(etag)
    return Sum(etag, is_git=True) if known and len(etag) == 40 else None
