"""What is on the disk before anything refers to it, and checksums of files."""

import hashlib
import os
import sys
from pathlib import Path

HASHED_AT_ONCE = 1 << 24  # bytes


def flush(folder: Path) -> None:
    """Return when a folder's list of names is on the disk."""
    if sys.platform == "win32":  # which opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def facts_of(path: Path) -> dict[str, int | str]:
    """A file's size and SHA-256."""
    digest = hashlib.sha256()
    # Few large pieces: for each one the thread that hashes must ask the one that trains to let it run.
    with path.open("rb", buffering=0) as file:
        while piece := file.read(HASHED_AT_ONCE):
            digest.update(piece)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
