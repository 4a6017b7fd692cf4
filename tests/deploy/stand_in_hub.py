"""A hub of models on this machine: addresses and headers as the real one's, and its ways to go wrong."""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Files = dict[str, bytes]  # by "org/repo/name"


class Hub(ThreadingHTTPServer):
    """Serves files; large ones from another path, as from a CDN.

    breaks_after: so many bytes, then the connection ends, for so many answers of each file. status: of every
    answer for a file, by name. wrong: files whose content is not what their checksum says. ranges: False for
    a server that knows none. pause_s: before each kilobyte. seen: method, path, Range and Authorization.
    """

    daemon_threads = True

    def __init__(self, files: Files) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.breaks_after: dict[str, tuple[int, int]] = {}
        self.status: dict[str, int] = {}
        self.busy: Counter[str] = Counter()  # answers with 503, by name
        self.claimed_size: dict[str, int] = {}
        self.wrong: set[str] = set()
        self.ranges = True
        self.pause_s = 0.0
        self.seen: list[tuple[str, str, str | None, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def gets(self, name: str) -> list[str | None]:
        """The ranges that were asked for of a file's bytes."""
        return [each[2] for each in self.seen if each[0] == "GET" and each[1] == f"/cdn/{name}"]


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.seen.append((self.command, path, self.headers["Range"], self.headers["Authorization"]))
        if found := re.fullmatch(r"/(.+?/.+?)/resolve/([^/]+)/(.+)", path):
            self.resolve(f"{found[1]}/{found[3]}", found[2])
        elif path.startswith("/cdn/"):
            self.content(path.removeprefix("/cdn/"))
        elif found := re.fullmatch(r"/api/models/(.+?/.+?)(/revision/.*|/tree/.*)?", path):
            self.model(found[1], (found[2] or "").startswith("/tree"))
        else:
            self.end(404)

    def resolve(self, name: str, revision: str) -> None:
        hub = self.server
        status = hub.status.get(name, 200 if name in hub.files and revision in ("main", COMMIT) else 404)
        if hub.busy[name] > 0:
            hub.busy[name] -= 1
            status = 503
        if status != 200:
            code = {404: "EntryNotFound", 403: "GatedRepo"}.get(status, "")
            self.end(status, {"X-Error-Code": code})
            return
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag_of(name, hub.files[name])}"'}
        if not is_large(name):
            self.end(200, headers, hub.files[name])
            return
        size = hub.claimed_size.get(name, len(hub.files[name]))
        linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(size)}
        self.end(
            302, {**headers, **linked, "Location": f"{hub.url.replace('127.0.0.1', 'localhost')}/cdn/{name}"}
        )

    def content(self, name: str) -> None:
        """Large files: from a byte on, slowly, wrongly or not to the end, as the hub is told."""
        hub, content = self.server, self.server.files[name]
        if name in hub.wrong:
            content = content[:-1] + b"?"
        begin, status, headers = 0, 200, {}
        if hub.ranges and (found := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")):
            begin, status = int(found[1]), 206
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            if begin >= len(content):
                self.end(416)
                return
        count, times = hub.breaks_after.get(name, (len(content), 0))
        hub.breaks_after[name] = count, times - 1
        self.end(status, headers, content[begin:], count if times > 0 else None)

    def model(self, repo: str, is_tree: bool) -> None:
        """What there is in a repository."""
        names = [name.removeprefix(f"{repo}/") for name in self.server.files if name.startswith(f"{repo}/")]
        tree = [{"type": "file", "path": name, "size": 1, "oid": COMMIT} for name in names]
        whole = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        answer: Any = tree if is_tree else whole
        self.end(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def end(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        content: bytes = b"",
        count: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.pour(content if count is None else content[:count])
        if count is not None:
            self.close_connection = True

    def pour(self, content: bytes) -> None:
        try:
            for begin in range(0, len(content), 1024):
                self.wfile.write(content[begin : begin + 1024])
                if self.server.pause_s:
                    time.sleep(self.server.pause_s)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked has been killed

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pth"))


def etag_of(name: str, content: bytes) -> str:
    """As the hub names contents: large ones by SHA-256, others as git does."""
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(files: Files) -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub(files)
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
