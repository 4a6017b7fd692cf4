"""Reading fuzzed shards, in short; `python -m tests.hostile.fuzz_shards` is the long form."""

import sys

import pytest

from tests.hostile.fuzz_shards import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are limited as Linux does it")


def test_fuzzed_shards_neither_crash_nor_hang_nor_run_anything():
    report = fuzz(count=60, seed=1)
    assert not report.failures
    assert report.found["used"] and len(report.found) > 5


@pytest.mark.slow
def test_many_fuzzed_shards():
    assert not fuzz(count=500, seed=0).failures
