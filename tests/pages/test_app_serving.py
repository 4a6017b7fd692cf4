"""How pages are served: to this machine alone, and without letting visitors make the server fetch things."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.pages.conftest import Server, free_port

PAGE = """\
import sys
import gradio as gr
from modules.web import page, serve

def build():
    with page("Hello") as blocks:
        picture, answer = gr.File(), gr.Textbox(label="answer")
        gr.Button("Go").click(lambda path: path and "read", picture, answer, api_name="read")
    return blocks

host, port = (word.partition("=")[2] for word in sys.argv[1:3])
sys.exit(serve(build, host=host, port=int(port), upload_limit_mb=0.1))
"""


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of almost nothing, `python -m hello host=… port=…`."""
    folder = tmp_path_factory.mktemp("hello")
    (folder / "hello.py").write_text(PAGE)
    return folder


@pytest.fixture(scope="module")
def served(hello: Path, start_page: Callable[..., Server]) -> Iterator[Server]:
    yield start_page("hello", "host=127.0.0.1", PYTHONPATH=f"{hello}:.")


def ask(server: Server, value: object) -> str:
    """What the page's HTTP API answers to a file."""
    call = f"{server.address}gradio_api/call/read"
    event = httpx.post(call, json={"data": [value]}, timeout=60).json()["event_id"]
    return httpx.get(f"{call}/{event}", timeout=60).text


def upload(server: Server, data: bytes) -> httpx.Response:
    return httpx.post(f"{server.address}gradio_api/upload", files={"files": ("a.png", data)}, timeout=60)


def test_an_uploaded_file_is_read(served: Server) -> None:
    path = upload(served, b"small").json()[0]
    assert "read" in ask(served, {"path": path, "meta": {"_type": "gradio.FileData"}})


def test_a_file_above_the_limit_is_refused(served: Server) -> None:
    assert upload(served, bytes(200_000)).status_code == 413


def test_a_body_above_the_limit_or_without_a_length_is_refused(served: Server) -> None:
    call = f"{served.address}gradio_api/call/read"
    assert httpx.post(call, content=b" " * 5_000_000).status_code == 413
    assert httpx.post(call, content=iter([b"{}"])).status_code == 411


def test_an_address_in_the_place_of_a_file_is_not_fetched(served: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/picture.png"
        answer = ask(served, {"path": address, "meta": {"_type": "gradio.FileData"}})
        assert "error" in answer and "addresses are not fetched" in answer
        with pytest.raises(TimeoutError):
            listener.accept()


def test_files_of_the_machine_are_neither_read_nor_shown(served: Server, hello: Path) -> None:
    own = str(hello / "hello.py")
    assert "error" in ask(served, {"path": own, "meta": {"_type": "gradio.FileData"}})
    for path in (own, "README.md", "/etc/passwd"):
        assert httpx.get(f"{served.address}gradio_api/file={path}").status_code in (403, 404)


def test_only_loopback_answers(served: Server) -> None:
    port = int(served.address.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(OSError):  # another of the machine's own addresses; all of 127/8 is one on Linux
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_taken_port_is_one_line(hello: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server("hello", "host=127.0.0.1", f"port={port}", PYTHONPATH=f"{hello}:.")
        assert server.process.wait(120) == 2
        assert server.stop() == 2
    assert server.output == f"error: port: {port} is taken; set another one, such as port={port + 1}\n"


def test_a_foreign_address_is_one_line(hello: Path) -> None:
    server = Server("hello", "host=192.0.2.1", f"port={free_port()}", PYTHONPATH=f"{hello}:.")
    assert server.process.wait(120) == 2
    server.stop()
    assert server.output == "error: host: '192.0.2.1' is no address of this machine\n"


def test_it_ends_with_status_0_and_takes_its_files_along(hello: Path, tmp_path: Path) -> None:
    server = Server(
        "hello",
        "host=127.0.0.1",
        f"port={free_port()}",
        PYTHONPATH=f"{hello}:.",
        TMPDIR=str(tmp_path),
    ).wait()
    path = upload(server, b"small").json()[0]
    assert Path(path).is_relative_to(tmp_path) and Path(path).is_file()
    assert server.stop() == 0
    assert "Traceback" not in server.output
    assert not list(tmp_path.glob("kaskade-page-*"))
