"""What a training leaves in its folder, read back."""

import math
from pathlib import Path

import pytest

from inference.runs import checkpoints_of, read_metrics


def test_metrics_are_columns_with_nan_for_what_was_not_said(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss,rare\n10,0.5,\n20,0.25,3\n", encoding="utf-8")
    found = read_metrics(tmp_path)
    assert found["step"] == [10, 20] and found["loss"] == [0.5, 0.25]
    assert math.isnan(found["rare"][0]) and found["rare"][1] == 3


def test_a_run_without_reports_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n", encoding="utf-8")
    assert read_metrics(tmp_path) == {}
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / "nowhere")


def test_checkpoints_come_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("step_00000010", "step_00000002", "step_00000020.unfinished", "other"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest").write_text("step_00000010")
    assert list(checkpoints_of(tmp_path)) == [2, 10]
    assert checkpoints_of(tmp_path)[2].name == "step_00000002"
