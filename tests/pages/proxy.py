"""A reverse proxy as docs/web.md describes it: what lies under a path goes to a page, without that path."""

import itertools
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

CONNECTION = b"connection:"


class Proxy(socketserver.ThreadingTCPServer):
    """prefix: the path, with a stroke at either end. strayed: what was asked for outside of it."""

    daemon_threads = True

    def __init__(self, prefix: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Forward)
        self.prefix, self.port = prefix, port
        self.strayed: list[str] = []

    @property
    def address(self) -> str:
        """Where the page is, seen from outside."""
        return f"http://127.0.0.1:{self.server_address[1]}{self.prefix}"


class Forward(socketserver.StreamRequestHandler):
    """One request to a connection."""

    server: Proxy

    def handle(self) -> None:
        """Hand the request on, and the answer back as it comes."""
        words = self.rfile.readline().decode().split()
        if len(words) != 3:
            return
        method, path, version = words
        headers = [*itertools.takewhile(lambda line: line not in (b"\r\n", b""), self.rfile)]
        if not path.startswith(self.server.prefix):
            if path != "/favicon.ico":  # which browsers ask of every site, at its root
                self.server.strayed.append(path)
            self.wfile.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            return
        first = f"{method} /{path.removeprefix(self.server.prefix)} {version}\r\nConnection: close\r\n"
        kept = [line for line in headers if not line.lower().startswith(CONNECTION)]
        body = self.rfile.read(length_in(headers))
        with socket.create_connection(("127.0.0.1", self.server.port)) as page:
            page.sendall(b"".join([first.encode(), *kept, b"X-Forwarded-Proto: http\r\n\r\n", body]))
            try:
                while data := page.recv(65536):
                    self.wfile.write(data)
            except ConnectionError:  # whoever asked has left
                return


def length_in(headers: list[bytes]) -> int:
    """Of the body that follows."""
    fields = (line.decode().partition(":") for line in headers)
    return next((int(value) for name, _, value in fields if name.lower() == "content-length"), 0)


@contextmanager
def under(prefix: str, address: str) -> Iterator[Proxy]:
    """A proxy before the page at that address."""
    port = urlsplit(address).port
    assert port is not None
    with Proxy(prefix, port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
