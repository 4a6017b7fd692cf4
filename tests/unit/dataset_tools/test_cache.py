"""The folder of copies: its size, its faults, commands; several processes and threads share it."""

import errno
import io
import itertools
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from dataset_tools.cache import Cache, CacheError
from dataset_tools.data_config import DataConfig
from dataset_tools.fetch import ShardReader
from dataset_tools.stream import Stream
from tests.unit.dataset_tools.stream_cases import soon

ROOT = Path(__file__).parents[3]
KB = 1000


@pytest.fixture
def memory():
    """Shards a … h of 1 kB each, and one of 9."""
    files = fsspec.filesystem("memory")
    for name in "abcdefgh":
        files.pipe_file(f"/{name}.tar", name.encode() * KB)
    files.pipe_file("/large.tar", b"x" * 9 * KB)
    yield files
    files.rm("/", recursive=True)


def size(folder: Path) -> int:
    """Of all files at one moment: other threads add and remove some, so it looks twice."""
    seen = listed(folder)
    while seen != (seen := listed(folder)):
        pass
    return sum(seen.values())


def listed(folder: Path) -> dict[str, int]:
    sizes = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            sizes[path.name] = path.stat().st_size
    return sizes


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def config(shards, tmp_path, **changes) -> DataConfig:
    settings = {"shards": shards, "image_size_px": 16, "multiple_px": 4, "aspect_ratios": ["1/1"]}
    settings |= {"batch_size": 4, "num_workers": 0, "cache_dir": str(tmp_path / "cache")}
    return DataConfig(**(settings | changes))


def keys_of(stream, number):
    return [batch["keys"] for batch in itertools.islice(stream, number)]


# size


def test_the_copies_are_never_more_than_the_limit(memory, tmp_path, monkeypatch):
    """Room is made before a download; what is on its way counts (three fetched ahead, one that is read)."""
    sizes = []
    original = type(memory).get_file

    def spy(self, path, target, **options):
        original(self, path, target, **options)
        sizes.append(size(tmp_path))

    monkeypatch.setattr(type(memory), "get_file", spy)
    reader = ShardReader(tmp_path, cache_gb=4.5e-6)
    for name in "abcdefghabcd":
        reader.read(f"memory://{name}.tar", 0, 1)
    reader.prefetch([f"memory://{name}.tar" for name in "efgh"])
    reader.read("memory://a.tar", 0, 1)
    assert max(sizes) <= 4 * KB


def test_a_shard_larger_than_the_limit_is_read_and_is_then_alone(memory, tmp_path):
    reader = ShardReader(tmp_path, cache_gb=2.5e-6)
    for name in ("a", "large", "b"):
        assert len(reader.read(f"memory://{name}.tar", 0, KB)) == KB
    assert size(tmp_path) == KB


def test_evicted_copies_are_closed_so_that_their_space_is_free(memory, tmp_path):
    reader = ShardReader(tmp_path, cache_gb=2.5e-6)
    first = reader.file("memory://a.tar")
    for name in "bcd":
        reader.file(f"memory://{name}.tar")
    assert first.closed and len(reader._open) <= 3


def test_what_is_being_read_is_no_copy_used_long_ago(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_tools.fetch.TOUCH_EVERY_S", 0.0)
    reader = ShardReader(tmp_path, cache_gb=2.5e-6)
    used = reader.file("memory://a.tar")
    reader.file("memory://b.tar")
    for path in tmp_path.glob("*.tar"):
        os.utime(path, (1, 1))
    reader.read("memory://a.tar", 0, 1)
    reader.file("memory://c.tar")
    assert not used.closed


def test_too_little_room_for_what_is_read_is_said_once(memory, tmp_path, caplog):
    reader = ShardReader(tmp_path, cache_gb=1.5e-6)
    for name in "ababab":
        reader.read(f"memory://{name}.tar", 0, 1)
    assert caplog.text.count("data.cache_gb: 1.5e-06 is too little") == 1


def test_downloads_that_dead_processes_left_are_cleared_away(memory, tmp_path):
    left = tmp_path / "0123-5000.part"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    ShardReader(tmp_path).read("memory://a.tar", 0, 1)
    assert not left.exists()


WORKER = """
import sys
from dataset_tools.fetch import ShardReader
reader = ShardReader(sys.argv[1], cache_gb=6e-5, allow_commands=True)
for number in range(40):
    shard = f"pipe:head -c 20000 /dev/zero; echo {(number * int(sys.argv[2])) % 9}"
    assert len(reader.read(shard, 0, 20000)) == 20000
"""


def test_processes_that_evict_each_others_copies_still_read_everything(tmp_path):
    """Three of them, nine shards, room for three."""
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, step], env=environment, stderr=subprocess.PIPE, text=True)
        for step in "124"
    ]
    for process in processes:
        _, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
    assert size(tmp_path) <= 60000 and not list(tmp_path.glob("*.part"))


# faults


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_full_disk_ends_the_run_with_one_line(make_shards, memory, tmp_path, monkeypatch, num_workers):
    for path in make_shards([4, 4]).glob("*.tar"):
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())

    def full(self, path, target, **options):
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(type(memory), "get_file", full)
    with pytest.raises(
        OSError, match=r"data\.cache_dir: .*/cache has no space left for .*; make room"
    ) as caught:
        keys_of(Stream(config("memory://bucket", tmp_path, num_workers=num_workers)), 1)
    assert "\n" not in str(caught.value)
    assert soon(lambda: left(tmp_path / "cache") == ["lock"])


def test_a_folder_that_cannot_be_made_ends_the_run_with_one_line(memory, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CacheError, match=r"data\.cache_dir: .*/cache cannot be written to"):
        ShardReader(tmp_path / "cache").file("memory://a.tar")


def test_a_download_that_was_taken_for_dead_is_tried_again(memory, tmp_path, monkeypatch):
    original, lost = type(memory).get_file, []

    def slow(self, path, target, **options):
        original(self, path, target, **options)
        if not lost:
            lost.append(target)
            os.unlink(target)

    monkeypatch.setattr(type(memory), "get_file", slow)
    assert ShardReader(tmp_path, first_wait_s=0.01).read("memory://a.tar", 0, 1) == b"a"


def test_a_stream_without_a_size_is_cut_at_the_limit(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(type(memory), "size", lambda self, path: None)
    reader = ShardReader(tmp_path, cache_gb=5e-6, attempts=1)
    assert reader.read("memory://a.tar", 0, KB) == b"a" * KB
    with pytest.raises(OSError, match=r"larger than all that data\.cache_gb allows"):
        reader.read("memory://large.tar", 0, 1)


def test_waiting_for_a_download_of_another_thread(memory, tmp_path, monkeypatch):
    """Both want the same shard at the same time; it is fetched once."""
    original, num_fetches, gate = type(memory).get_file, [], threading.Event()

    def slow(self, path, target, **options):
        num_fetches.append(path)
        gate.wait(5)
        original(self, path, target, **options)

    monkeypatch.setattr(type(memory), "get_file", slow)
    folder = Cache(tmp_path, 10**6)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(folder.open("memory://a.tar").file.read())) for _ in "12"
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert found == [b"a" * KB] * 2 and len(num_fetches) == 1


# commands


@pytest.mark.parametrize("num_workers", [0, 1])
def test_commands_are_run_when_allowed(make_shards, tmp_path, num_workers):
    folder = make_shards([5, 4])
    shards = f"pipe:cat {folder}/{{000000..000001}}.tar"
    settings = config(shards, tmp_path, allow_commands=True, num_workers=num_workers)
    assert keys_of(Stream(settings), 6) == keys_of(Stream(config(str(folder), tmp_path)), 6)


def test_commands_that_hold_an_address_are_no_address(make_shards, tmp_path):
    """Beside them nothing is looked for, so no file system is asked for."""
    shard = make_shards([3]) / "000000.tar"
    command = f"pipe:cat {shard} # s3://bucket/000000.tar"
    assert keys_of(Stream(config(command, tmp_path, allow_commands=True)), 1)


def test_a_command_that_fails_is_no_shard(make_shards, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    folder = make_shards([4])
    half = f"pipe:head -c 3000 {folder}/000000.tar; echo first >&2; echo it broke >&2; exit 3"
    stream = Stream(config([half, str(folder)], tmp_path, allow_commands=True))
    assert sorted(sum(keys_of(stream, 1), [])) == ["000", "001", "002", "003"]
    assert "exit status 3: it broke (4 attempts)" in caplog.text
    assert soon(lambda: left(tmp_path / "cache") == ["lock"])  # a fetch ahead may still be at it


def test_an_endless_command_is_stopped(tmp_path):
    reader = ShardReader(tmp_path, cache_gb=1e-2, allow_commands=True, attempts=1)
    with pytest.raises(OSError, match=r"larger than all that data\.cache_gb allows"):
        reader.file("pipe:cat /dev/zero")
    assert left(tmp_path) == ["lock"]


def test_a_command_from_a_checkpoint_is_not_run(tmp_path):
    """References that wait for their batch are part of a stream's state, and name shards."""
    mark = tmp_path / "mark"
    with pytest.raises(OSError, match=r"data\.allow_commands=true only"):
        ShardReader(tmp_path / "cache").file(f"pipe:touch {mark}")
    assert not mark.exists()


# what servers do


def test_a_download_that_brings_more_than_was_announced_is_stopped(memory, tmp_path, monkeypatch):
    def endless(self, path, target, callback, **options):
        with open(target, "wb") as file:
            for _ in range(1000):
                callback.relative_update(file.write(b"x" * KB))
        raise AssertionError("nobody stopped it")

    monkeypatch.setattr(type(memory), "get_file", endless)
    with pytest.raises(OSError, match="got more than its 1000 bytes"):
        Cache(tmp_path, 1 << 20).open("memory://a.tar")
    assert left(tmp_path) == ["lock"]


def test_a_download_that_was_taken_for_dead_does_not_pass_off_the_other_one_s_half(tmp_path):
    cache, part = Cache(tmp_path, 1 << 20), tmp_path / "a.part"

    class Slow(io.BytesIO):
        def read(self, size=-1):
            part.unlink()
            part.write_bytes(b"another process's half")
            self.read = super().read
            return super().read(size)

    part.touch()
    with pytest.raises(OSError, match="another process began anew"):
        cache._copy(Slow(b"all of it"), part, 100)
