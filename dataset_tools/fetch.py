"""Random access to the bytes of shards: local ones in place, remote ones through a folder of local copies.

A remote shard is fetched whole before it is read. So a connection that breaks leaves no half-read shard
behind, a resumed run finds every sample by its offset, samples of many shards can be mixed, and all processes
of a machine share one download. What is needed next is fetched meanwhile.
"""

import logging
import os
import queue
import stat
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import BinaryIO

from dataset_tools.cache import Cache, CacheError, is_evicted, touch
from dataset_tools.sources import COMMAND, is_remote, one_line

log = logging.getLogger(__name__)

NUM_FETCHERS = 3  # downloads at a time, per reader
TOUCH_EVERY_S = 30.0
REMEMBERED = 64  # downloads


def default_cache_dir() -> Path:
    """Where remote shards are kept when the config names no folder: $XDG_CACHE_HOME/kaskade/shards."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaskade" / "shards"


class ShardReader:
    """Reads parts of shards, and keeps the files that it read last open.

    cache_dir: folder for copies of remote shards (None: default_cache_dir()). cache_gb: see Cache.
    allow_commands: run the commands of pipe: addresses. attempts, first_wait_s: a fetch that fails is tried
    so often, with about first_wait_s, twice that, … between; once only after another failed.
    """

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        cache_gb: float = 100.0,
        allow_commands: bool = False,
        attempts: int = 4,
        first_wait_s: float = 0.5,
        max_open: int = 32,
    ):
        self.cache = Cache(Path(cache_dir) if cache_dir else default_cache_dir(), int(cache_gb * 1e9))
        self.allow_commands = allow_commands
        self.attempts = attempts
        self.first_wait_s = first_wait_s
        self.max_open = max_open
        self._chance = Random()  # of waits; nothing else may depend on it
        self._is_reachable = True
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()
        self._touched: dict[str, float] = {}
        self._has_warned = False
        self._fetched: deque[str] = deque(maxlen=REMEMBERED)
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._fetchers: list[threading.Thread] = []

    def file(self, shard: str) -> BinaryIO:
        """The open file of a shard; belongs to the reader. Raises OSError if it cannot be had, CacheError."""
        if shard not in self._open:
            self._open[shard] = self._fetch(shard) if is_remote(shard) else _local(shard)
            self._close_evicted()
            if len(self._open) > self.max_open:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(shard)
        if is_remote(shard) and time.monotonic() - self._touched.get(shard, -TOUCH_EVERY_S) >= TOUCH_EVERY_S:
            self._touched[shard] = time.monotonic()
            touch(self._open[shard].name)
        return self._open[shard]

    def read(self, shard: str, offset: int, num_bytes: int) -> bytes:
        """The bytes at an offset. Raises OSError when the shard is too short or cannot be had, CacheError."""
        file = self.file(shard)
        file.seek(offset)
        data = file.read(min(num_bytes, os.fstat(file.fileno()).st_size))  # who asks for too much may lie
        if len(data) < num_bytes:
            raise OSError(f"{shard} ends at byte {offset + len(data)}, expected {offset + num_bytes}")
        return data

    def prefetch(self, shards: Sequence[str]) -> None:
        """Begin to fetch the remote ones in the background; what fails is tried again when it is read."""
        for shard in shards:
            if is_remote(shard) and shard not in self._open:
                self._wanted.put(shard)
                if len(self._fetchers) < NUM_FETCHERS:
                    self._fetchers.append(threading.Thread(target=self._fetch_wanted, daemon=True))
                    self._fetchers[-1].start()

    def close(self) -> None:
        """Close all files; nothing more is fetched."""
        while self._open:
            self._open.popitem()[1].close()
        for _ in range(len(self._fetchers)):
            self._wanted.put(None)
        self._fetchers.clear()
        self._wanted = queue.SimpleQueue()

    def _fetch_wanted(self) -> None:
        wanted = self._wanted
        while (shard := wanted.get()) is not None:
            with suppress(OSError, CacheError):
                self._fetch(shard).close()

    def _close_evicted(self) -> None:
        """Set the space free that copies take although the cache has forgotten them."""
        newest = next(reversed(self._open))
        for shard, file in list(self._open.items()):
            if shard != newest and is_remote(shard) and is_evicted(file):
                self._open.pop(shard).close()

    def _fetch(self, url: str) -> BinaryIO:
        """The local copy of a remote shard; fetches it when there is none. Raises OSError, CacheError."""
        if url.startswith(COMMAND) and not self.allow_commands:  # a checkpoint may hold any name
            raise OSError(f"{url}: commands are run with data.allow_commands=true only")
        attempts = self.attempts if self._is_reachable else 1  # a server that is down fails soon for all
        for attempt in range(attempts):
            try:
                copy = self.cache.open(url)
                self._is_reachable = True
                if copy.is_new:
                    self._note_download(url)
                return copy.file
            except CacheError:
                raise
            except Exception as error:  # every file system of fsspec has its own errors
                if _is_missing(error):  # waiting does not help
                    raise FileNotFoundError(f"{url}: not found") from error
                if attempt + 1 == attempts:
                    self._is_reachable = False
                    reason = one_line(error.__cause__ or error)
                    raise OSError(f"{url}: {reason} ({attempts} attempts)") from error
                log.debug("%s: %s; trying again", url, one_line(error))
                time.sleep(self.first_wait_s * 2**attempt * self._chance.uniform(0.5, 1.5))
        raise ValueError("attempts must be at least 1")

    def _note_download(self, url: str) -> None:
        if url in self._fetched and not self._has_warned:
            self._has_warned = True
            limit_gb = self.cache.limit_bytes / 1e9
            log.warning(
                "data.cache_gb: %g is too little for what is read at a time: %s was fetched again after at"
                " most %d others; enlarge it, or lower data.shuffle or data.num_workers",
                *(limit_gb, url, REMEMBERED),
            )
        self._fetched.append(url)


def _local(path: str) -> BinaryIO:
    """Open a file of this machine. Raises OSError for pipes and devices too, which may have no end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path}: no regular file")
    return open(path, "rb")


def _is_missing(error: Exception) -> bool:
    """Whether there is no such file; fsspec says so of a web server that does not answer, too."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp"):
        return getattr(cause, "status", None) in (404, 410)
    return isinstance(error, FileNotFoundError)
