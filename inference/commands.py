"""Commands of the project, started from a notebook as they would be typed."""

import os
import shlex
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil

WIDTH, MIB, PAUSE_S = 100, 2**20, 0.25


class CommandError(RuntimeError):
    """A command ended with an error, which stands above."""


def python(*words: str | Path, until: str | None = None, quiet: bool = False) -> None:
    """Run `python -m words` and print what it says, then its time and memory (that of its workers included).

    until: a text at whose first appearance the command is ended from outside. quiet: print the command and
    the last line alone. Raises CommandError when it ends with an error by itself; interrupting the cell ends
    the command, too.
    """
    typed = shlex.join(["python", "-m", *map(str, words)])
    print(
        textwrap.fill(typed, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    )
    started, said, ended = time.perf_counter(), [], False
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
    )
    peak = _Peak(process.pid)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.append(line)
            if not quiet:
                print(line, end="", flush=True)
            if until is not None and until in line and not ended:
                ended = True
                process.terminate()
        status = process.wait()
    except BaseException:  # the cell was interrupted
        process.terminate()
        process.wait()
        raise
    finally:
        memory = peak.result()
    if status != 0 and not ended:
        if quiet:
            print(*said, sep="", end="")
        raise CommandError(f"the command ended with status {status}; what it said stands above")
    print(f"{time.perf_counter() - started:.0f} s, memory at most {memory / MIB:,.0f} MiB")


class _Peak:
    """The most memory that a process and those that it started have had, looked at again and again."""

    def __init__(self, pid: int) -> None:
        self._process, self._bytes, self._done = psutil.Process(pid), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def result(self) -> int:
        self._done.set()
        self._thread.join()
        return self._bytes

    def _watch(self) -> None:
        while True:
            self._bytes = max(self._bytes, self._now())
            if self._done.wait(PAUSE_S):
                return

    def _now(self) -> int:
        try:
            family = [self._process, *self._process.children(recursive=True)]
            return sum(each.memory_info().rss for each in family)
        except psutil.Error:  # one of them has just ended
            return 0
