"""Commands that a notebook starts: what they say, how they end, what they took."""

import re
import threading
from pathlib import Path

import pytest

from inference.commands import CommandError, python


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that says its arguments, or counts for ever, or fails."""
    (tmp_path / "told.py").write_text(
        "import sys, time\n"
        "print('ünïcode', *sys.argv[1:])\n"
        "print('to the other stream', file=sys.stderr)\n"
        "if 'fail' in sys.argv: sys.exit(3)\n"
        "while 'count' in sys.argv:\n"
        "    print('step 1'); time.sleep(0.05)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "told"


def test_says_what_was_typed_what_it_said_and_what_it_took(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    python(module, "x=1", Path("a b"))
    shown = capsys.readouterr()
    assert "ünïcode x=1 a b\n" in shown.out and "to the other stream\n" in shown.out
    assert shown.out.startswith(f"python -m {module} x=1 'a b'\n") and not shown.err
    assert re.search(r"\d s, memory at most [\d,]+ MiB\n$", shown.out)
    assert not shown.out.rstrip().endswith("at most 0 MiB")


def test_quiet_says_only_what_was_typed_and_took(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    python(module, quiet=True)
    shown = capsys.readouterr().out
    assert module in shown and "ünïcode" not in shown and "MiB" in shown


def test_a_failure_is_raised_with_what_was_said_shown(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = threading.active_count()
    with pytest.raises(CommandError, match="status 3"):
        python(module, "fail", quiet=True)
    assert "to the other stream" in capsys.readouterr().out
    assert threading.active_count() == threads  # nothing goes on watching


def test_until_ends_it_from_outside_and_is_no_failure(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    python(module, "count", until="step 1")
    assert "step 1" in capsys.readouterr().out
