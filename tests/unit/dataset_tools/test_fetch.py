"""Remote shards are fetched whole, ahead, again when a connection breaks, and kept as copies."""

import itertools
import json
import logging
import os
import threading
import time
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dataset_tools import room
from dataset_tools.data_config import DataConfig
from dataset_tools.fetch import ShardReader
from dataset_tools.sources import expand
from dataset_tools.stream import Stream
from tests.unit.dataset_tools.stream_cases import soon


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; breaks off the first `breaks[name]` transfers of a file half-way."""

    def __init__(self, *args, requests, breaks, **rest):
        self.requests, self.breaks = requests, breaks
        super().__init__(*args, **rest)

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.requests[name] += 1
        if self.breaks[name] > 0:
            self.breaks[name] -= 1
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A web server on this machine: its address, the requests by file name, and the breaks to come."""
    requests, breaks = Counter(), Counter()
    handler = partial(Handler, directory=str(tmp_path), requests=requests, breaks=breaks)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}", requests, breaks
        http.shutdown()


def config(shards, tmp_path, **changes) -> DataConfig:
    settings = {"shards": shards, "image_size_px": 16, "multiple_px": 4, "aspect_ratios": ["1/1"]}
    settings |= {"batch_size": 4, "num_workers": 0, "cache_dir": str(tmp_path / "cache")}
    return DataConfig(**(settings | changes))


def keys_of(stream, number):
    return [batch["keys"] for batch in itertools.islice(stream, number)]


@pytest.mark.parametrize("pattern", ["", "/", "/*.tar", "/{000000..000002}.tar"])
@pytest.mark.parametrize("with_index", [True, False])
def test_http_folders_globs_and_braces(make_shards, server, pattern, with_index):
    folder = make_shards([1, 1, 1])
    url = f"{server[0]}/shards"
    if with_index:
        index = {"shards": [{"name": f"{n:06}.tar"} for n in range(3)]}
        (folder / "index.json").write_text(json.dumps(index))
    assert expand(url + pattern) == [f"{url}/{n:06}.tar" for n in range(3)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_http_reads_the_same_batches_as_the_folder(make_shards, server, tmp_path, num_workers):
    folder = make_shards([9, 5, 6])
    settings = {"num_workers": num_workers, "split": "samples"}
    url = f"{server[0]}/shards"  # listed by this process before the workers are forked
    local = keys_of(Stream(config(str(folder), tmp_path, **settings)), 12)
    assert keys_of(Stream(config(url, tmp_path, **settings)), 12) == local
    downloads = [number for name, number in server[1].items() if name.endswith(".tar")]
    assert downloads == [1, 1, 1]  # for two workers and three epochs


def test_a_broken_connection_is_tried_again(make_shards, server, tmp_path):
    make_shards([8])
    server[2]["000000.tar"] = 2
    reader = ShardReader(tmp_path / "cache", first_wait_s=0.01)
    shard = f"{server[0]}/shards/000000.tar"
    content = (tmp_path / "shards" / "000000.tar").read_bytes()
    assert reader.read(shard, 0, len(content)) == content
    assert server[1]["000000.tar"] == 3


def test_a_connection_that_stays_broken_and_a_404_are_skipped_and_named(
    make_shards, server, tmp_path, caplog, monkeypatch
):
    make_shards([4, 4, 4])
    (tmp_path / "shards" / "000001.tar").unlink()
    server[2]["000002.tar"] = 10**6
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    stream = Stream(config(f"{server[0]}/shards/{{000000..000002}}.tar", tmp_path))
    seen = {key for keys in keys_of(stream, 6) for key in keys}
    assert seen == {"000", "001", "002", "003"}
    assert stream.skipped == {"unreachable": 2}
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("000001.tar: not found" in message for message in messages) == 1
    assert sum("000002.tar" in message and "(4 attempts)" in message for message in messages) == 1
    assert soon(lambda: not list((tmp_path / "cache").glob("*.part")))  # a fetch ahead may still be at it


def test_the_next_shards_are_fetched_while_the_first_are_read(make_shards, server, tmp_path):
    make_shards([4, 4, 4, 4])
    url = f"{server[0]}/shards/{{000000..000003}}.tar"
    keys_of(Stream(config(url, tmp_path, shuffle=0)), 1)
    assert soon(lambda: server[1]["000001.tar"])
    assert {name for name in server[1] if name.endswith(".tar")} == {"000000.tar", "000001.tar"}


def test_a_server_that_is_down_is_given_up_soon(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ValueError, match="nothing usable in .*: left out: 50 unreachable"):
        keys_of(Stream(config("http://127.0.0.1:9/{00..49}.tar", tmp_path)), 1)
    assert len(waits) == 3  # for the first shard only
    for wait, expected in zip(waits, (0.5, 1.0, 2.0), strict=True):
        assert 0.5 * expected <= wait <= 1.5 * expected


def test_a_server_that_is_not_there_ends_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(
        ValueError, match=r"nothing usable in http://127.0.0.1:9/a.tar: .*Connect.* \(4 attempts\)"
    ):
        keys_of(Stream(config("http://127.0.0.1:9/a.tar", tmp_path)), 1)
    with pytest.raises(FileNotFoundError, match="cannot list http://127.0.0.1:9/data"):
        Stream(config("http://127.0.0.1:9/data", tmp_path))


def test_other_file_systems_by_fsspec(make_shards, memory, tmp_path):
    folder = make_shards([9, 5])
    for path in folder.glob("*.tar"):
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    expected = ["memory:///bucket/000000.tar", "memory:///bucket/000001.tar"]
    assert expand("memory://bucket") == expected
    assert expand("memory://bucket/*.tar") == expected
    settings = config(["memory://bucket"], tmp_path)
    assert keys_of(Stream(settings), 8) == keys_of(Stream(config(str(folder), tmp_path)), 8)


def test_copies_used_longest_ago_make_room(memory, tmp_path):
    for name in "abc":
        memory.pipe_file(f"/{name}.tar", name.encode() * 1000)
    reader = ShardReader(tmp_path, cache_gb=2.5e-6, max_open=1)
    for second, name in enumerate("abac"):
        assert reader.read(f"memory://{name}.tar", 0, 1) == name.encode()
        for path in tmp_path.glob("*.tar"):  # clocks of file systems are coarse
            if path.read_bytes().startswith(name.encode()):
                os.utime(path, (second, second))
    assert {path.read_bytes()[:1] for path in tmp_path.glob("*.tar")} == {b"a", b"c"}
    assert reader.read("memory://b.tar", 0, 1) == b"b"  # fetched again


def test_a_shard_that_changed_its_size_is_fetched_again(memory, tmp_path):
    for content in (b"first", b"second"):
        memory.pipe_file("/a.tar", content)
        assert ShardReader(tmp_path).read("memory://a.tar", 0, len(content)) == content


def test_a_download_that_another_process_left_is_taken_over(memory, tmp_path, monkeypatch):
    memory.pipe_file("/a.tar", b"content")
    assert ShardReader(tmp_path).read("memory://a.tar", 0, 7) == b"content"
    copy = next(tmp_path.glob("*.tar"))
    part = copy.with_suffix(".part")
    os.rename(copy, part)
    finish = threading.Timer(0.3, os.replace, (part, copy))  # the other process is alive and finishes
    finish.start()
    memory.pipe_file("/a.tar", b"CONTENT")
    assert ShardReader(tmp_path).read("memory://a.tar", 0, 7) == b"content"
    finish.join()
    os.rename(copy, part)
    monkeypatch.setattr(room, "STALE_S", -1.0)  # the other process is dead
    assert ShardReader(tmp_path).read("memory://a.tar", 0, 7) == b"CONTENT"


def test_reading_past_the_end_is_an_error(make_shards):
    shard = str(make_shards([1]) / "000000.tar")
    with pytest.raises(OSError, match="ends at byte"):
        ShardReader().read(shard, 0, 10**6)


def test_files_stay_open_but_not_too_many(make_shards):
    folder = make_shards([1] * 5)
    reader = ShardReader(max_open=2)
    files = [reader.file(str(folder / f"{n:06}.tar")) for n in range(5)]
    assert [file.closed for file in files] == [True, True, True, False, False]
    assert reader.file(str(folder / "000004.tar")) is files[4]
    reader.close()
    assert all(file.closed for file in files)
