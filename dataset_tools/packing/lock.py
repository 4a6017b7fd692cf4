"""One process at a time packs into a folder: two would write into one another's half-finished shards."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there nobody is kept away
    fcntl = None  # type: ignore[assignment]


@contextmanager
def held(path: Path, what: Path) -> Iterator[None]:
    """Hold the lock file `path` of the folder `what` until the block or the process ends, however it ends.

    Raises ValueError, in one line, when another process holds it.
    """
    with path.open("ab") as file:
        if sys.platform != "win32" and fcntl is not None:  # the former is what mypy understands
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"{what}: another pack is at work there; wait for its end") from error
            except OSError:  # a network file system without locks
                pass
        yield
