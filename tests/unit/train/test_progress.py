"""The progress line says step, loss, speed and the time that is left."""

import io

import pytest

from train.reports.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def reported(out: io.StringIO) -> str:
    times = iter([100.0, 110.0, 120.0])
    progress = Progress("demo", num_steps=50, start=10, out=out, clock=lambda: next(times))
    progress.report(20, 0.12345, 64.04)
    progress.note("something")
    progress.report(30, 0.1, 64.0)
    progress.close()
    return out.getvalue()


def test_a_file_gets_plain_lines_with_the_time_left() -> None:
    assert reported(io.StringIO()).splitlines() == [
        "demo  step 20/50  loss 0.1235  64.0 samples/s  30 s left",
        "something",
        "demo  step 30/50  loss 0.1000  64.0 samples/s  20 s left",
    ]


def test_a_terminal_gets_one_line_that_changes() -> None:
    text = reported(Terminal())
    assert text.count("\n") == 2 and text.count("\r") == 3 and "something\n" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.4, "4 s"), (200, "3 min 20 s"), (59.7, "1 min 00 s"), (18420, "5 h 07 min"), (183600, "2 d 03 h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text
