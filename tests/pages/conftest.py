"""A real browser, and pages as real processes."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.pages.app_material import write_runs

ROOT = Path(__file__).parents[2]
SECONDS_TO_START = 300  # of a machine that does much else
MILLISECONDS = 90_000  # for whatever a test waits for in a page
HERE = {"127.0.0.1", "localhost", "::1", ""}
NO_NETWORK = ("--no-sandbox", "--disable-background-networking", "--disable-component-update")


@dataclass
class Watched:
    """A tab of the browser and what it did: errors on its console, requests to other machines."""

    page: Any
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Take note from now on."""
        self.page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if urlsplit(request.url).hostname not in HERE and not request.url.startswith(("data:", "blob:")):
            self.outside.append(request.url)


class Server:
    """A page that runs as a process; `address` is where, `output` what it has printed."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.lines: list[str] = []
        self.address = ""
        self._answers = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """All lines so far."""
        return "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if not self.address and (found := re.search(r"http://\S+", line)):
                self.address = found[0]
                self._answers.set()
        self._answers.set()

    def wait(self) -> "Server":
        """Until the address is printed, which is when the page answers."""
        self._answers.wait(SECONDS_TO_START)
        assert self.address, f"the page did not start:\n{self.output}"
        return self

    def stop(self) -> int:
        """End it; returns its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join(10)
        return status


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.fixture(scope="module")
def start_page() -> Iterator[Callable[..., Server]]:
    """Starts `python -m <arguments> port=<free>` and waits for its address; all end with the module."""
    servers: list[Server] = []

    def start(*arguments: str, **environment: str) -> Server:
        servers.append(Server(*arguments, f"port={free_port()}", **environment))
        return servers[-1].wait()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def app_runs(tiny_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with all kinds of adapters, for nobody to write in."""
    return write_runs(tiny_runs, tmp_path_factory.mktemp("app") / "runs")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page for drawing keeps pictures."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def start_app(start_page: Callable[..., Server], app_runs: Path, kept: Path) -> Callable[..., Server]:
    """Starts the page for drawing; keywords are its settings."""

    def start(**settings: Any) -> Server:
        all_settings = {"run": app_runs, "output": kept, "device": "cpu"} | settings
        return start_page("inference.app", *(f"{name}={value}" for name, value in all_settings.items()))

    return start


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. Where there is none tests are skipped, but not in CI.

    For a module, not for all of them: while it is there, nothing else can run an event loop.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        no_browser("playwright is not installed")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=list(NO_NETWORK))
        except Error as error:
            no_browser(f"no Chromium starts ({str(error).splitlines()[0]})")
        yield browser
        browser.close()


def no_browser(reason: str) -> None:
    """Skip, or fail where the environment variable CI says that nothing may be left out."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """Opens an address in a new window: visit(address, width=1280, height=900, dark=False)."""
    contexts = []

    def open_window(address: str, width: int = 1280, height: int = 900, dark: bool = False) -> Watched:
        size = {"width": width, "height": height}
        scheme = "dark" if dark else "light"
        context = chromium.new_context(viewport=size, color_scheme=scheme, accept_downloads=True)
        context.set_default_timeout(MILLISECONDS)
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.listen()
        watched.page.goto(address, wait_until="domcontentloaded")
        return watched

    yield open_window
    for context in contexts:
        context.close()
