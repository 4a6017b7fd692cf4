"""Work ahead in other processes: in order, bounded, and clear when a process dies."""

import multiprocessing
import os

import pytest

from dataset_tools.lookahead import Lookahead
from tests.unit.dataset_tools.stream_cases import soon


@pytest.mark.parametrize("num_workers", [0, 2])
def test_results_come_by_index_and_may_be_asked_for_again(num_workers):
    with Lookahead(abs, [-n for n in range(40)], num_workers) as results:
        assert [results[n] for n in range(40)] == list(range(40))
        assert results[39] == 39
        assert results[30] == 30


def test_without_workers_only_what_is_asked_for_is_done():
    done = []
    with Lookahead(done.append, range(100), 0) as results:
        results[3], results[3], results[7]
    assert done == [3, 7]


def test_a_worker_that_dies_is_an_error_not_a_hang():
    with pytest.raises(OSError, match="worker process died"), Lookahead(os._exit, [1], 1) as results:
        results[0]


def ends_at_one(number: int) -> int:
    if number == 1:
        os._exit(1)
    return number


def test_a_worker_that_died_meanwhile_is_the_same_error():
    with Lookahead(ends_at_one, range(20), 1) as results:
        assert results[0] == 0
        assert soon(lambda: not multiprocessing.active_children())
        with pytest.raises(OSError, match="worker process died"):
            results[1]
