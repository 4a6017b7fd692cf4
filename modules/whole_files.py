"""Files that are whole or not there, whoever reads them and whenever their writer is killed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes, *, alone: bool = False) -> None:
    """Write a file in one go; text is UTF-8. The rest is as of `whole_file`."""
    with whole_file(path, alone=alone) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: Path, *, alone: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when it is complete and on the disk; its folder is made.

    Any number of processes may write the same one at once: each has a temporary name of its own, NAME.….tmp,
    which stays where its process is killed meanwhile. alone: no other process writes it, and NAME.tmp, which
    a killed one has left, is written over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp" if alone else f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with named(path), open(unfinished, "wb" if alone else "xb") as file:
            yield file
            settle(file)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def settle(file: BinaryIO) -> None:
    """Get a file's content onto the disk, where its name must not be before it."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let an error of writing say of which file: that of a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
