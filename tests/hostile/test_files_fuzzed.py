"""Some of the files of `python -m tests.hostile.fuzz_files`."""

from tests.hostile.fuzz_files import run


def test_files_changed_at_random_come_to_one_line() -> None:
    assert not run(range(12))
