"""Random access to the bytes of shards: local ones in place, remote ones through a folder of local copies.

A remote shard is fetched whole before it is read. So a connection that breaks leaves no half-read shard
behind, a resumed run finds every sample by its offset, and all processes of a machine share one download.
"""

import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dataset_tools.sources import connect, is_remote, one_line

log = logging.getLogger(__name__)

STALE_S = 120.0  # a download that has not grown for so long belongs to a process that died


def default_cache_dir() -> Path:
    """Where remote shards are kept when the config names no folder: $XDG_CACHE_HOME/kaskade/shards."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaskade" / "shards"


class ShardReader:
    """Reads parts of shards, and keeps the files that it read last open.

    cache_dir: folder for copies of remote shards (None: default_cache_dir()). cache_gb: after a download the
    copies used longest ago are deleted until all together are below this. attempts, first_wait_s: a fetch
    that fails is tried so often, with first_wait_s, twice that, … between; once only after another failed.
    """

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        cache_gb: float = 100.0,
        attempts: int = 4,
        first_wait_s: float = 0.5,
        max_open: int = 32,
    ):
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.cache_bytes = int(cache_gb * 1e9)
        self.attempts = attempts
        self.first_wait_s = first_wait_s
        self.max_open = max_open
        self._is_reachable = True
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()

    def file(self, shard: str) -> BinaryIO:
        """The open file of a shard; belongs to the reader. Raises OSError when it cannot be had."""
        if shard not in self._open:
            self._open[shard] = open(self._fetched(shard) if is_remote(shard) else shard, "rb")  # noqa: SIM115
            if len(self._open) > self.max_open:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(shard)
        return self._open[shard]

    def read(self, shard: str, offset: int, num_bytes: int) -> bytes:
        """The bytes at an offset. Raises OSError when the shard cannot be had or is too short."""
        file = self.file(shard)
        file.seek(offset)
        data = file.read(num_bytes)
        if len(data) < num_bytes:
            raise OSError(f"{shard} ends at byte {offset + len(data)}, expected {offset + num_bytes}")
        return data

    def prefetch(self, shards: Sequence[str]) -> None:
        """Begin to fetch the remote ones in the background; what fails is tried again when it is read."""
        remote = [shard for shard in shards if is_remote(shard)]
        if remote:
            threading.Thread(target=self._fetch_all, args=(remote,), daemon=True).start()

    def _fetch_all(self, urls: Sequence[str]) -> None:
        for url in urls:
            with suppress(OSError):
                self._fetched(url)

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _fetched(self, url: str) -> Path:
        """The local copy of a remote shard; fetches it when there is none. Raises OSError."""
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        attempts = self.attempts if self._is_reachable else 1  # a server that is down fails soon for all
        for attempt in range(attempts):
            try:
                copy = _fetch(url, self.cache_dir, name)
                copy.touch()  # the time of last use, for _evict
                _evict(self.cache_dir, self.cache_bytes, keep=copy)
                self._is_reachable = True
                return copy
            except Exception as error:  # every file system of fsspec has its own errors
                if _is_missing(error):  # waiting does not help
                    raise FileNotFoundError(f"{url}: not found") from error
                if attempt + 1 == attempts:
                    self._is_reachable = False
                    reason = one_line(error.__cause__ or error)
                    raise OSError(f"{url}: {reason} ({attempts} attempts)") from error
                log.debug("%s: %s; trying again", url, one_line(error))
                time.sleep(self.first_wait_s * 2**attempt)
        raise ValueError("attempts must be at least 1")


def _fetch(url: str, folder: Path, name: str) -> Path:
    """Download a shard into the folder, unless a copy of its present size is there, and return its path."""
    file_system, path = connect(url)
    size = file_system.size(path)
    copy, part = folder / f"{name}-{size}.tar", folder / f"{name}-{size}.part"
    folder.mkdir(parents=True, exist_ok=True)
    while not copy.exists():
        if not _claim(part):
            time.sleep(0.1)
            continue
        try:
            file_system.get_file(path, str(part))
            if size is not None and part.stat().st_size != size:
                raise OSError(f"got {part.stat().st_size} of {size} bytes")
            os.replace(part, copy)
        finally:
            part.unlink(missing_ok=True)
    return copy


def _is_missing(error: Exception) -> bool:
    """Whether there is no such file; fsspec says so of a web server that does not answer, too."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp"):
        return getattr(cause, "status", None) in (404, 410)
    return isinstance(error, FileNotFoundError)


def _claim(part: Path) -> bool:
    """Create the file of a download; False when another process is downloading into it."""
    try:
        part.touch(exist_ok=False)
        return True
    except FileExistsError:
        with suppress(FileNotFoundError):  # just finished
            if time.time() - part.stat().st_mtime > STALE_S:
                part.unlink()
        return False


def _evict(folder: Path, limit_bytes: int, keep: Path) -> None:
    """Delete the copies used longest ago until those left are below the limit; keep the one just fetched."""
    copies = []
    for path in folder.glob("*.tar"):
        with suppress(OSError):  # another process was faster
            copies.append((path.stat().st_mtime, path.stat().st_size, path))
    excess = sum(size for _, size, _ in copies) - limit_bytes
    for _, size, path in sorted(copies):
        if excess > 0 and path != keep:
            with suppress(OSError):  # Windows keeps a file that a process has open
                path.unlink()
                excess -= size
