"""What a page of runs computes: progress, smoothing, levels, axes."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.train.monitor_cases import write_metrics, write_record, write_run, write_settings
from train.monitor.draw.axes import Axis, fitting, short
from train.monitor.progress import elapsed_seconds, progress_of
from train.monitor.runs import read_run
from train.monitor.series import (
    MOST_POINTS,
    binned,
    bounds,
    grouped,
    levels_of,
    line,
    recent_change,
    smoothed,
)


def progress(folder: Path, later_s: float = 0.0) -> Any:
    run = read_run("a", folder)
    return progress_of(run, run.written + later_s)


def test_time_left_is_steps_left_at_the_recent_speed(tmp_path: Path) -> None:
    write_run(tmp_path, 5, num_steps=200)  # 50 steps of 4 samples at 8 a second
    found = progress(tmp_path)
    assert (found.state, found.step, found.num_steps) == ("running", 50, 200)
    assert found.seconds == pytest.approx(25)
    assert found.seconds_left == pytest.approx(75)
    assert found.samples_per_second == 8


def test_states_follow_the_record(tmp_path: Path) -> None:
    assert progress(tmp_path).state == "waiting"
    write_settings(tmp_path)
    write_record(tmp_path, {})
    assert progress(tmp_path)[:2] == ("running", "starting")
    write_metrics(tmp_path, 5)
    assert progress(tmp_path, 60).state == "running"
    silent = progress(tmp_path, 3600)
    assert silent.state == "silent" and "60 min" in silent.told
    for end, state in (
        ({"step": 100, "interrupted": False}, "done"),
        ({"step": 50, "interrupted": True}, "stopped"),
        ({"step": 50, "interrupted": False}, "ended"),
        ({"error": "DivergedError: step 50"}, "failed"),
    ):
        write_record(tmp_path, {"ended": "2026-01-01T00:01:00+00:00", **end})
        assert progress(tmp_path, 3600).state == state
        assert math.isnan(progress(tmp_path).seconds_left)


def test_a_slow_run_is_not_called_silent_between_two_reports(tmp_path: Path) -> None:
    write_run(tmp_path, 5, log_every=2000)  # half a second a step: 1000 s from report to report
    assert progress(tmp_path, 1200).state == "running"
    assert progress(tmp_path, 7000).state == "silent"


def test_seconds_are_counted_over_gaps(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,samples,samples_per_second\n1,8,4\n2,16,\n3,24,8\n")
    np.testing.assert_allclose(elapsed_seconds(read_run("a", tmp_path).table), [2, 2, 3])


def test_smoothing_keeps_constants_and_starts_at_the_first_value() -> None:
    np.testing.assert_allclose(smoothed(np.full(50, 3.0), 0.9), 3.0)
    values = np.array([5.0, math.nan, 1.0, 1.0])
    soft = smoothed(values, 0.5)
    assert soft[0] == 5 and math.isnan(soft[1])
    assert soft[2] == pytest.approx((0.25 * 5 + 0.5 * 1) / 0.75)  # nothing is drawn towards 0
    np.testing.assert_array_equal(smoothed(values, 0.0), values)
    with pytest.raises(ValueError, match="smoothing"):
        smoothed(values, 1.0)


def test_smoothing_more_leaves_less_noise() -> None:
    noise = np.random.default_rng(0).normal(1, 1, 2000)
    spreads = [smoothed(noise, weight)[200:].std() for weight in (0.0, 0.5, 0.9, 0.98)]
    assert spreads == sorted(spreads, reverse=True)


def test_a_long_line_is_thinned_out_and_ends_where_it_ends() -> None:
    x = np.arange(10_000.0)
    found = line("loss", x, 1 / (1 + x), 0.5)
    assert len(found.x) == len(found.y) == len(found.raw) <= MOST_POINTS
    assert found.x[-1] == 9999 and found.y[-1] == pytest.approx(1e-4, rel=0.01)
    assert (np.diff(found.x) > 0).all()


def test_pieces_cover_everything_once() -> None:
    for count, parts in ((0, 5), (1, 5), (7, 3), (1000, 160)):
        pieces = bounds(count, parts)
        assert [i for start, end in pieces for i in range(start, end)] == list(range(count))
        assert len(pieces) <= parts
    values = np.array([[1.0, math.nan], [3.0, math.nan], [5.0, 2.0]])
    np.testing.assert_array_equal(binned(values, [(0, 2), (2, 3)]), [[2.0, math.nan], [5.0, 2.0]])


def test_levels_are_in_the_order_of_their_noise(tmp_path: Path) -> None:
    write_metrics(tmp_path, 30)
    levels = levels_of(read_run("a", tmp_path).table)
    assert levels is not None and levels.centres == (-8, -4, 0, 4, 8)
    assert levels.losses.shape == (30, 5)
    assert (np.diff(levels.losses[-1]) < 0).all()  # the material's losses fall faster with less noise


def test_levels_of_a_player_are_found_and_other_columns_are_not(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,student/loss_log_snr_-2.5,loss_log_snr_x,loss\n1,0.5,1,1\n")
    levels = levels_of(read_run("a", tmp_path).table)
    assert levels is not None and levels.centres == (-2.5,)
    (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n")
    assert levels_of(read_run("a", tmp_path).table) is None


def test_every_column_has_one_place_on_the_page(tmp_path: Path) -> None:
    names = [
        "step",
        "loss",
        "loss_unweighted",
        "loss_log_snr_+0",
        "generator/loss",
        "discriminator/gradient_norm",
    ]
    names += ["learning_rate", "samples_per_second", "data_wait_share", "peak_memory_gib", "psnr", "samples"]
    groups = grouped(names)
    assert groups["loss"] == ["loss", "loss_unweighted", "generator/loss"]
    assert groups["memory"] == ["peak_memory_gib"] and groups["others"] == ["psnr"]
    placed = [name for group in groups.values() for name in group]
    assert len(placed) == len(set(placed))


def test_recent_change_compares_the_newest_fifth_with_the_one_before() -> None:
    values = np.array([9.0] * 6 + [2.0, 2.0, 1.0, 1.0])
    assert recent_change(values) == pytest.approx(-0.5)
    assert math.isnan(recent_change(np.array([1.0, 2.0])))


@pytest.mark.parametrize("is_log", [False, True])
def test_marks_are_round_few_and_inside(is_log: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        ends = np.sort(10 ** rng.uniform(-6, 6, 2))
        axis = fitting(ends, is_log)
        marks = axis.marks(5)
        assert 1 <= len(marks) <= 9, axis
        places = [place for place, _ in marks]
        assert all(0 <= place <= 1 for place in places) and places == sorted(places)
        inside = axis.place(ends)
        assert (inside >= -1e-9).all() and (inside <= 1 + 1e-9).all()


def test_axes_take_whatever_numbers_there_are() -> None:
    for values in ([], [math.nan], [0.0], [5.0, 5.0], [-1.0, 1.0], [0.0, 0.0, 1e-12]):
        for is_log in (False, True):
            axis = fitting(np.array(values, np.float64), is_log)
            assert axis.low < axis.high and axis.marks()


def test_an_axis_of_powers_knows_no_zero() -> None:
    np.testing.assert_array_equal(np.isnan(Axis(0.1, 10, True).place(np.array([0.0, -1.0, 1.0]))), [1, 1, 0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04361, "0.0436"),
        (1.2e-5, "1.2e-5"),
        (950, "950"),
        (3000, "3000"),
        (12_500, "12.5k"),
        (3e6, "3M"),
        (-8, "−8"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text
    assert short(math.nan) == "–"


def test_now_is_after_the_last_report(tmp_path: Path) -> None:
    write_run(tmp_path, 5)
    assert progress_of(read_run("a", tmp_path), time.time()).state == "running"
