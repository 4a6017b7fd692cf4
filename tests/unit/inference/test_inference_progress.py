"""The bar over sampling steps."""

import io

import pytest
import torch
from rich.console import Console

from inference.progress import ProgressBar, Step


def run(bar: ProgressBar) -> None:
    with bar:
        for _ in range(2):
            for stage, steps in (("stage_c", 3), ("stage_b", 2)):
                for step in range(1, steps + 1):
                    bar(Step(stage, step, steps, torch.zeros(1)))


def test_the_bar_counts_all_steps_of_all_batches() -> None:
    bar = ProgressBar(2)
    run(bar)
    [task] = bar.bar.tasks
    assert (task.completed, task.total) == (10, 10)


def test_it_shows_where_it_is_on_a_terminal() -> None:
    bar = ProgressBar(2)
    bar.bar.disable = False
    bar.bar.live.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    run(bar)
    assert "10/10" in bar.bar.live.console.file.getvalue()  # type: ignore[attr-defined]


def test_it_says_nothing_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run(ProgressBar(2))
    assert capsys.readouterr().err == ""


def test_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(1) as bar:
        bar.print("a/[b].png")
    assert capsys.readouterr().out == "a/[b].png\n"
