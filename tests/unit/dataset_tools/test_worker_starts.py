"""How data workers are started, and signals that come before they have begun to ignore them."""

import multiprocessing
import os
import signal
from multiprocessing.context import BaseContext

import pytest

from dataset_tools.children import follow_parent, held_back, start_method
from dataset_tools.workers import IGNORED, Workers
from tests.unit.dataset_tools.stream_cases import take

METHODS = multiprocessing.get_all_start_methods()


class Pids:
    """Each item is the process that made it."""

    def items(self, worker, num_workers):
        while True:
            yield os.getpid()


def signalled(method: str) -> BaseContext:
    """A way to start processes each of which, before its first line of ours, gets what launchers send."""
    context = multiprocessing.get_context(method)
    made = type("Context", (type(context),), {"Process": EARLY[method]})()
    return made


def signal_itself() -> None:
    for name in IGNORED:
        os.kill(os.getpid(), getattr(signal, name))


class EarlySpawned(multiprocessing.get_context("spawn").Process):  # type: ignore[name-defined, misc]
    def run(self):
        signal_itself()
        super().run()


EARLY = {"spawn": EarlySpawned}
if "fork" in METHODS:

    class EarlyForked(multiprocessing.get_context("fork").Process):  # type: ignore[name-defined, misc]
        def run(self):
            signal_itself()
            super().run()

    EARLY["fork"] = EarlyForked


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be held back here")
@pytest.mark.parametrize("method", EARLY)
def test_signals_that_come_before_a_worker_ignores_them_do_not_end_it(method):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    workers = Workers(Pids(), 1, 2, lambda item: item, signalled(method))
    try:
        assert len(take(workers, 20)) == 20
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    finally:
        workers.close()


@pytest.mark.parametrize("method", METHODS)
def test_workers_do_the_same_however_they_are_started(method):
    workers = Workers(Pids(), 2, 2, lambda item: item, multiprocessing.get_context(method))
    found = take(workers, 6)
    workers.close()
    assert found[0::2] == [found[0]] * 3 and found[1::2] == [found[1]] * 3
    assert len({os.getpid(), *found}) == 3


def test_they_are_forked_on_linux_alone_unless_the_program_says_otherwise(monkeypatch):
    chosen: dict = {}
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: chosen.get("method"))
    assert [start_method(platform) for platform in ("linux", "darwin", "win32")] == ["fork", "spawn", "spawn"]
    chosen["method"] = "spawn"  # by a program that uses our parts
    assert start_method("linux") == "spawn"


def test_without_signals_to_hold_back_nothing_happens(monkeypatch):
    """As on Windows."""
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)
    monkeypatch.delattr(signal, "SIGUSR1", raising=False)
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    before = signal.getsignal(signal.SIGINT)
    with held_back(IGNORED):
        assert start_method() in METHODS
    assert signal.getsignal(signal.SIGINT) is before
    assert callable(follow_parent)
