"""Serving a page: to this machine alone unless asked, with nothing fetched from anywhere."""

import errno
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

# Read by gradio when a page is built and when it is launched.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from modules.schema import one_line
from modules.web.bodies import BodyLimit
from modules.web.look import CSS_FILE, HEAD, theme

LOOPBACK = "127.0.0.1"
MOST_FILES = 8  # of the largest size, in one request
QUIETLY: dict[str, Any] = {  # without all that reaches out, or shows more than the page
    "share": False,
    "ssr_mode": False,
    "mcp_server": False,
    "run_history": False,
    "enable_monitoring": False,
    "footer_links": [],
    "quiet": True,
    "prevent_thread_lock": True,
}
STAY_SECONDS = 0.5  # how soon an interrupt is noticed where signals wait for the main thread


def serve(
    build: Callable[[], gr.Blocks],
    *,
    host: str = LOOPBACK,
    port: int = 7860,
    root_path: str = "",
    upload_limit_mb: float = 20,
    css: str = "",
    open_browser: bool = False,
) -> int:
    """Build a page and serve it until SIGINT or SIGTERM; returns the exit status.

    build: makes the page; uploads and what it shows lie in a folder of its own, which is removed at the end.
    host: an address of this machine; "0.0.0.0" for all of them. root_path: the page's path behind a proxy.
    upload_limit_mb: largest file that is taken. css: rules of this page alone. Prints the address once it
    answers; a port that is taken, or an address that is not ours, is one line and status 2.
    """
    if problem := unusable(host, port):
        print("error:", problem, file=sys.stderr)
        return 2
    with own_folder():
        blocks = build()
        forbid_fetching(blocks)
        limit = int(upload_limit_mb * 2**20)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                root_path=root_path,
                theme=theme(),
                head=HEAD,
                css=CSS_FILE.read_text(encoding="utf-8") + css,
                max_file_size=limit,
                inbrowser=open_browser,
                app_kwargs={"middleware": [(BodyLimit, (), {"limit_bytes": MOST_FILES * limit})]},
                **QUIETLY,
            )
        except OSError as error:  # somebody took the port meanwhile
            print(f"error: port: {port} cannot be served ({one_line(error)})", file=sys.stderr)
            return 2
        print(f"{blocks.title}: {address}  (Ctrl-C ends it)", flush=True)
        until_interrupted()
        blocks.close(verbose=False)
    return 0


def unusable(host: str, port: int) -> str | None:
    """Why this address cannot be served, in one line; None if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            if os.name != "nt":  # where it would allow to share a port that is taken
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except PermissionError:
        return f"port: {port} is not allowed; take one from 1024 on"
    except OverflowError:
        return f"port: expected 1 to 65535, found {port}"
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return f"port: {port} is taken; set another one, such as port={port + 1}"
        return f"host: {host!r} is no address of this machine"
    return None


def page_folder() -> Path:
    """The folder of the page that is being built or served: what lies in it may be shown."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for uploads and for what a page shows, which goes when the page does."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="kaskade-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def forbid_fetching(blocks: gr.Blocks) -> None:
    """Let nobody make the server fetch an address, by naming it in the place of an uploaded file."""
    for block in blocks.blocks.values():
        move = block.async_move_resource_to_block_cache

        async def move_own(path: str | Path | None, move: Callable = move) -> str | None:
            if str(path).lower().startswith(("http:", "https:")):
                raise gr.Error("a file has to be uploaded; addresses are not fetched", print_exception=False)
            return await move(path)

        block.async_move_resource_to_block_cache = move_own  # type: ignore[method-assign, assignment]


def until_interrupted() -> None:
    """Wait for SIGINT or SIGTERM."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, end)
    while not ended.wait(STAY_SECONDS):
        pass
