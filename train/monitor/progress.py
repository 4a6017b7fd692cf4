"""How far a run is, how fast it goes, and whether it still does."""

import math
from typing import Literal, NamedTuple

import numpy as np

from train.monitor.runs import Run
from train.monitor.table import Numbers, Table

State = Literal["waiting", "running", "silent", "done", "stopped", "ended", "failed"]
RECENT = 20  # reports that the speed is the middle of
SILENT_AFTER_S = 120.0  # at least, and SILENT_REPORTS times what lies between two reports
SILENT_REPORTS = 6
STARTING_S = 900.0  # networks are loaded, perhaps fetched, and compiled


class Progress(NamedTuple):
    """num_steps: 0 when not known. seconds: spent in steps; seconds_left: NaN when not known."""

    state: State
    told: str  # the state in words
    step: int
    num_steps: int
    seconds: float
    seconds_left: float
    samples_per_second: float


def progress_of(run: Run, now: float) -> Progress:
    """now: seconds since 1970."""
    table = run.table
    step = int(table.steps[-1]) if len(table.steps) else 0
    num_steps = run.whole_number("run", "num_steps") or 0
    speed = recent_speed(table)
    per_step = seconds_per_step(table)
    state, told = state_of(run, now, per_step, step, num_steps)
    left = per_step * (num_steps - step) if num_steps and state in ("running", "silent") else math.nan
    seconds = elapsed_seconds(table)
    return Progress(state, told, step, num_steps, float(seconds[-1]) if len(seconds) else 0.0, left, speed)


def state_of(run: Run, now: float, per_step: float, step: int, num_steps: int) -> tuple[State, str]:
    """Whether it runs, by its record and by when it last wrote."""
    last = run.starts[-1] if run.starts else {}
    if not last and not len(run.table.steps):
        return "waiting", "nothing written yet"
    if "error" in last:
        return "failed", str(last["error"])
    if "ended" in last and last.get("interrupted"):
        return "stopped", f"stopped after step {last.get('step', step)}; the same command goes on"
    if "ended" in last:
        reached = last.get("step", step)
        if isinstance(reached, int) and num_steps and reached < num_steps:
            return "ended", f"ended after step {reached}: all epochs are read"
        return "done", "done"
    age = max(0.0, now - run.written)
    reports = max(1, run.whole_number("run", "log_every") or 1)
    expected = per_step * reports if math.isfinite(per_step) else STARTING_S / SILENT_REPORTS
    if age > max(SILENT_AFTER_S, SILENT_REPORTS * expected):
        return "silent", f"no report for {round(age / 60)} min: killed, or waiting for something"
    return "running", "starting" if not len(run.table.steps) else "running"


def recent_speed(table: Table) -> float:
    """Samples per second in the middle of the newest reports; NaN before the first."""
    return middle(table.column("samples_per_second")[-RECENT:])


def seconds_per_step(table: Table) -> float:
    """In the middle of the newest reports, NaN when not known."""
    steps = np.diff(table.steps, prepend=0.0)[-RECENT:]
    samples = np.diff(table.column("samples"), prepend=0.0)[-RECENT:]
    with np.errstate(divide="ignore", invalid="ignore"):
        return middle(samples / table.column("samples_per_second")[-RECENT:] / steps)


def elapsed_seconds(table: Table) -> Numbers:
    """Seconds spent in steps until each report, [R]: of samples and speed, for the table has no clock."""
    samples = np.diff(table.column("samples"), prepend=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = samples / table.column("samples_per_second")
    return np.cumsum(np.where(np.isfinite(seconds) & (seconds > 0), seconds, 0.0))


def middle(values: Numbers) -> float:
    """The median of those that are finite; NaN when none is."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan
