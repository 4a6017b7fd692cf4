"""Items that other processes make ahead: their order, and every way in which these processes can end."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dataset_tools.workers import Workers
from tests.unit.dataset_tools.stream_cases import soon, take


@dataclass
class Letters:
    """Worker 0 makes a0, a1, …, worker 1 b0, b1, …, so many of each; a note of each lies in `board`."""

    board: Path
    lengths: tuple[int, ...] = (10**9, 10**9)
    fails_at: int = -1
    error: type[Exception] = FileNotFoundError

    def items(self, worker, num_workers):
        for number in range(self.lengths[worker]):
            if number == self.fails_at:
                raise self.error("no more")
            name = f"{'ab'[worker]}{number}"
            (self.board / name).touch()
            yield name

    def made(self, letter="a"):
        return len(list(self.board.glob(f"{letter}*")))


class Stuck:
    """As if storage did not answer."""

    def items(self, worker, num_workers):
        yield "first"
        time.sleep(10**6)


class OddError(Exception):
    """One that cannot be read in another process."""

    def __init__(self, text):
        super().__init__(text, 1)


@pytest.fixture
def letters(tmp_path):
    return lambda **changes: Letters(tmp_path, **changes)


def start(data, num_workers=2, ahead=3, ready=lambda item: item):
    return Workers(data, num_workers, ahead, ready)


def processes():
    """The ids of this test's workers."""
    return [child.pid for child in multiprocessing.active_children()]


def test_workers_take_turns_and_one_that_has_come_to_its_end_is_left_out(letters):
    found = list(start(letters(lengths=(2, 5))))
    assert found == ["a0", "b0", "a1", "b1", "b2", "b3", "b4"]
    assert list(start(letters(lengths=(3, 0)))) == ["a0", "a1", "a2"]


def test_they_begin_without_being_asked_and_stay_so_many_items_ahead(letters):
    data = letters()
    workers = start(data, ahead=3)
    assert soon(lambda: data.made("a") == 3 and data.made("b") == 3)
    for taken in range(1, 20):
        next(workers)
        assert data.made() <= (taken + 1) // 2 + 3
    workers.close()


def test_items_are_made_ready_beside_the_consumer(letters):
    seen = []
    workers = start(letters(), ready=lambda item: seen.append(threading.current_thread()) or item.upper())
    assert soon(lambda: len(seen) == 6)  # and nothing was asked for
    assert take(workers, 2) == ["A0", "B0"] and threading.current_thread() not in seen
    workers.close()


@pytest.mark.parametrize("error", [FileNotFoundError, OddError])
def test_an_error_comes_in_the_place_of_its_item_and_says_where_it_was(letters, error):
    workers = start(letters(fails_at=2, error=error))
    assert take(workers, 4) == ["a0", "b0", "a1", "b1"]
    with pytest.raises(error if error is FileNotFoundError else RuntimeError) as caught:
        next(workers)
    told = str(caught.value) + "".join(caught.value.__notes__ if error is FileNotFoundError else "")
    assert "no more" in told and "data worker 1 of 2" in told and "in items" in told
    with pytest.raises(type(caught.value)):
        next(workers)
    workers.close()


def test_a_killed_worker_is_one_line_in_its_turn_and_nothing_before(letters):
    workers = start(letters(), num_workers=1)
    next(workers)
    os.kill(processes()[0], signal.SIGKILL)
    with pytest.raises(OSError, match=r"data worker 1 of 1 was killed by signal 9, .* memory") as caught:
        list(workers)
    assert "\n" not in str(caught.value)
    workers.close()
    assert not processes()


def test_signals_to_all_processes_of_a_run_leave_the_workers_at_work(letters):
    workers = start(letters())
    for pid in processes():  # which may not have come to their first line
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(pid, number)
    assert len(take(workers, 50)) == 50
    workers.close()


@pytest.mark.parametrize("is_closed", [True, False])
def test_no_process_and_no_thread_is_left_when_nobody_needs_the_items(is_closed):
    threads = threading.active_count()
    workers = start(Stuck())
    assert next(workers) == "first" and len(processes()) == 2
    if is_closed:
        workers.close()
        workers.close()
    else:
        del workers
        gc.collect()
    assert not processes() and threading.active_count() == threads


PARENT = """
import multiprocessing, sys, time
from tests.unit.dataset_tools.test_workers import Stuck, start
workers = start(Stuck())
next(workers)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
{end}
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
@pytest.mark.parametrize("end", ["time.sleep(10**6)", "sys.exit(0)", "raise ValueError"])
def test_they_end_with_the_process_that_needs_the_items(end):
    command = [sys.executable, "-c", PARENT.format(end=end)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pids = parent.stdout.readline().split()
        if "sleep" in end:
            parent.kill()
    assert len(pids) == 2
    assert soon(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


class Tensors:
    def items(self, worker, num_workers):
        yield from (SimpleNamespace(number=torch.full((1000,), number)) for number in range(3))


def test_tensors_outlive_their_worker():
    workers = start(Tensors(), num_workers=1)
    found = list(workers)
    workers.close()
    assert [int(item.number.sum()) for item in found] == [0, 1000, 2000]
