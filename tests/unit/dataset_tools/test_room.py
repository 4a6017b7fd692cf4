"""Downloads of several processes wait for each other rather than take more room than there is."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dataset_tools import cache, locks, room
from dataset_tools.cache import Cache
from dataset_tools.room import Room
from tests.unit.dataset_tools.stream_cases import soon

ROOT = Path(__file__).parents[3]
SHARD_BYTES = 100_000
READ = """
import sys
from dataset_tools import cache
from dataset_tools.fetch import ShardReader
cache.CHUNK_BYTES = 1000
folder, cache_gb, shard = sys.argv[1:]
reader = ShardReader(folder, float(cache_gb), allow_commands=True)
file = reader.file(shard)
assert len(file.read()) >= 100_000
"""


def start(folder: Path, limit_bytes: int, shard: str) -> subprocess.Popen:
    """A process that reads one shard."""
    command = [sys.executable, "-c", READ, str(folder), str(limit_bytes / 1e9), shard]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        _, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints


class Slow(ThreadingHTTPServer):
    """Serves shards /SIZE_NAME.tar, the second half of each when `is_open`; knows how many are under way."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_open, self.guard = threading.Event(), threading.Lock()
        self.num_asked = self.num_now = self.most = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", self.path[1:].partition("_")[0])
        self.end_headers()
        self.server.num_asked += 1

    def do_GET(self):
        server, num_bytes = self.server, int(self.path[1:].partition("_")[0])
        with server.guard:
            server.num_now += 1
            server.most = max(server.most, server.num_now)
        self.send_response(200)
        self.send_header("Content-Length", str(num_bytes))
        self.end_headers()
        self.wfile.write(bytes(num_bytes // 2))
        self.wfile.flush()
        server.is_open.wait(60)
        time.sleep(0.1)
        with server.guard:  # before the client has all of it, and lets another begin
            server.num_now -= 1
        with suppress(OSError):  # a client that was killed
            self.wfile.write(bytes(num_bytes - num_bytes // 2))

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Slow() as http:
        yield http
        http.is_open.set()
        http.shutdown()


def test_downloads_of_several_processes_wait_for_room(server, tmp_path):
    """Room for two and a half, five processes, each with a shard of its own."""
    processes = [start(tmp_path, 250_000, f"{server.url}/{SHARD_BYTES}_{name}.tar") for name in "abcde"]
    assert soon(lambda: server.num_asked >= 5 and server.num_now >= 2)
    assert not soon_more_than(server, 2)
    server.is_open.set()
    finish(processes)
    assert server.most == 2
    assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) == 200_000


def soon_more_than(server: Slow, number: int) -> bool:
    """Whether, of all that have asked for the size of their shard, more begin to fetch it than should."""
    deadline = time.monotonic() + 1.0
    while server.most <= number and time.monotonic() < deadline:
        time.sleep(0.02)
    return server.most > number


def test_a_shard_larger_than_all_room_waits_until_it_is_alone(server, tmp_path):
    sizes = (SHARD_BYTES, 300_000, 400_000)
    processes = [start(tmp_path, 250_000, f"{server.url}/{size}_large.tar") for size in sizes]
    assert soon(lambda: server.num_asked >= 3 and server.num_now)
    assert not soon_more_than(server, 1)
    server.is_open.set()
    finish(processes)
    assert server.most == 1


def test_commands_whose_sizes_nobody_knows_take_no_more_than_there_is(tmp_path):
    """They pause half-way, where they hold 150 kB together and each will need as much: two begin anew."""
    command = "pipe:head -c 60000 /dev/zero; sleep 0.5; head -c 60000 /dev/zero; echo"
    processes = [start(tmp_path, 150_000, f"{command} {name}") for name in "abc"]
    most = 0
    while any(process.poll() is None for process in processes):
        most = max(most, total(tmp_path))
        time.sleep(0.002)
    finish(processes)
    assert 120_000 < most <= 150_000


def total(folder: Path) -> int:
    """Bytes of all files at one moment: twice the same."""
    seen = sizes(folder)
    while seen != (seen := sizes(folder)):
        pass
    return sum(seen.values())


def sizes(folder: Path) -> dict[str, int]:
    found = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found[path.name] = path.stat().st_size
    return found


def test_a_process_that_was_killed_holds_its_room_only_until_it_looks_dead(server, tmp_path):
    first = start(tmp_path, 150_000, f"{server.url}/{SHARD_BYTES}_a.tar")
    assert soon(lambda: list(tmp_path.glob("*.part")) and server.num_now)
    second = start(tmp_path, 150_000, f"{server.url}/{SHARD_BYTES}_b.tar")
    assert soon(lambda: server.num_asked >= 2) and not soon_more_than(server, 1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    parts = list(tmp_path.glob("*.part"))
    assert len(parts) == 1  # the one that waits has none that could look dead
    server.is_open.set()
    long_ago = time.time() - room.STALE_S - 1
    os.utime(parts[0], (long_ago, long_ago))
    finish([second])
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(("names", "num_winners"), [("aaaaaaaaaa", 1), ("abcdefghij", 3)])
def test_of_ten_that_ask_at_once_as_many_begin_as_there_is_room_for(tmp_path, names, num_winners):
    """Or one, where all want the same shard."""
    all_at_once, won = threading.Barrier(len(names)), []

    def claim(name: str) -> None:
        all_at_once.wait()
        won.append(Room(tmp_path, 300).claim(tmp_path / f"{name}-100.part", 100))

    threads = [threading.Thread(target=claim, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == num_winners


def test_a_size_that_was_seen_is_reserved_from_the_beginning(tmp_path, monkeypatch):
    """So downloads of unknown sizes begin anew at first only."""
    monkeypatch.setattr(cache, "CHUNK_BYTES", 1000)
    folder, seen = Cache(tmp_path, 10**6), []
    monkeypatch.setattr(cache, "_size", lambda url: None)

    class File(io.BytesIO):
        def read(self, size=-1):
            seen.extend(path.stat().st_size for path in tmp_path.glob("*.part"))
            return super().read(size)

    class Files:
        def open(self, path, mode):
            return File(bytes(5000))

    monkeypatch.setattr(cache, "connect", lambda url: (Files(), url))
    for name in "ab":
        folder.open(f"x://{name}")
    assert seen == [0, 1250, 2500, 3750, 5000, 5000] + [5000] * 6


def test_without_locks_one_of_two_has_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(Room, "_under_way", lambda self: {})  # both look before one begins
    assert [Room(tmp_path, 300).claim(tmp_path / "a-100.part", 100) for _ in "12"] == [True, False]


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write everything")
def test_the_lock_of_another_user_is_enough(tmp_path):
    """Where several users share a folder."""
    lock = tmp_path / "lock"
    lock.touch(0o444)
    assert Room(tmp_path, 300).claim(tmp_path / "a-100.part", 100)
    lock.unlink()
