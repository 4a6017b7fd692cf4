"""How processes that work for this one behave."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


def start_method(platform: str = sys.platform) -> str:
    """How data workers are started: as was set for this program, else forked on Linux, else spawned.

    A forked process has loaded all packages already, which saves seconds. Elsewhere there is no fork
    (Windows), or the system's libraries do not survive one (macOS). Python 3.14 takes a server on Linux.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    return chosen or ("fork" if platform == "linux" else "spawn")


@contextmanager
def held_back(names: Iterable[str]) -> Iterator[None]:
    """Signals of these names wait: here, and in processes started meanwhile until they ignore them."""
    if sys.platform == "win32" or not hasattr(signal, "pthread_sigmask"):  # the former is for mypy
        yield
        return
    # Python starts it before the first process that is spawned, and lets signals through from then on.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in names])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent(ignored: Iterable[str] = ("SIGINT",)) -> None:
    """Leave signals of these names to the parent, and end when it does: it may be killed.

    To be called by a process that `multiprocessing` started.
    """
    for name in ignored:
        if hasattr(signal, name):  # Windows has fewer
            signal.signal(getattr(signal, name), signal.SIG_IGN)
            if sys.platform != "win32" and hasattr(signal, "pthread_sigmask"):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [getattr(signal, name)])
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a child

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
