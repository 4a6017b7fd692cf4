"""Locks of files, against other processes and threads."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: there nobody is kept away
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(file: BinaryIO, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an open file until the block or the process ends, where its file system has locks.

    wait: until whoever holds it lets go; else that raises BlockingIOError.
    """
    if sys.platform == "win32" or fcntl is None:  # the former is what mypy understands
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a network file system without locks
        pass
    try:
        yield
    finally:  # closing is not enough: a process that was forked just now has the file, too
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def alone(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock of a file that is made for nothing else. Raises ValueError(refusal) if another does."""
    with path.open("ab") as file, ExitStack() as stack:
        try:
            stack.enter_context(locked(file, wait=False))
        except BlockingIOError as error:
            raise ValueError(refusal) from error
        yield


def own(file: BinaryIO) -> bool:
    """Take an open file for this process alone, until it closes the file or ends; False if another has it.

    A lock of its own kind: processes that are forked meanwhile do not have it and cannot keep it.
    """
    if sys.platform == "win32" or fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # by which of them, the system decides (fcntl(2))
        return False
    except OSError:  # as above
        pass
    return True
