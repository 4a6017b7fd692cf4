"""Columns of a run's table as lines to draw: which belong together, smoothed, thinned out."""

import math
import re
from typing import NamedTuple

import numpy as np

from train.monitor.progress import elapsed_seconds
from train.monitor.table import STEP, Numbers, Table

LEVEL = re.compile(r"(?:(?P<player>.+)/)?loss_log_snr_(?P<centre>[+-]?\d{1,3}(?:\.\d+)?)")
MOST_POINTS = 240  # of a line: more are not seen, and travel at every refresh
RECENT_SHARE = 0.2  # of the reports, over which it is told where a line is going
LOSSES = ("loss", "loss_unweighted")
MEMORY = ("memory", "peak", "gib")
COUNTERS = ("samples", "skipped_steps", STEP)


class Levels(NamedTuple):
    """The unweighted loss by noise level. centres: log-SNR in ascending order [L]; losses: [R, L]."""

    centres: tuple[float, ...]
    losses: Numbers


class Line(NamedTuple):
    """x, y, raw: [P] each; y is smoothed, raw the mean of what lies in the same place."""

    name: str
    x: Numbers
    y: Numbers
    raw: Numbers


def levels_of(table: Table) -> Levels | None:
    """The loss by log-SNR of the first player that reports one; None where nobody does."""
    found: dict[str, dict[float, str]] = {}
    for name in table.columns:
        if match := LEVEL.fullmatch(name):
            found.setdefault(match["player"] or "", {})[float(match["centre"])] = name
    if not found:
        return None
    columns = next(iter(found.values()))
    centres = tuple(sorted(columns))
    return Levels(centres, np.stack([table.columns[columns[centre]] for centre in centres], axis=1))


def grouped(names: list[str]) -> dict[str, list[str]]:
    """Columns by what they tell: loss, gradient_norm, learning_rate, speed, wait, memory, others."""
    groups: dict[str, list[str]] = {
        key: [] for key in ("loss", "gradient_norm", "learning_rate", "speed", "wait", "memory", "others")
    }
    for name in names:
        last = name.rpartition("/")[2]
        if last in LOSSES:
            groups["loss"].append(name)
        elif last in ("gradient_norm", "learning_rate"):
            groups[last].append(name)
        elif last == "samples_per_second":
            groups["speed"].append(name)
        elif last == "data_wait_share":
            groups["wait"].append(name)
        elif any(word in last for word in MEMORY):
            groups["memory"].append(name)
        elif last not in COUNTERS and not LEVEL.fullmatch(name):
            groups["others"].append(name)
    return groups


def places(table: Table, axis: str) -> Numbers:
    """Where each report lies on the axis, [R]; axis: step | samples | hours."""
    if axis == "hours":
        return elapsed_seconds(table) / 3600
    return table.column("samples") if axis == "samples" else table.steps


def smoothed(values: Numbers, weight: float) -> Numbers:
    """A moving average [R] that starts at the first value and gives each later one 1 - weight.

    Divided by the sum of its weights, so that it is not drawn towards 0 at the beginning (Kingma & Ba 2015,
    section 3). NaNs stay NaN and count for nothing.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"smoothing: expected at least 0, below 1, found {weight}")
    result, mean, total = np.full(len(values), math.nan), 0.0, 0.0
    for i, value in enumerate(values):
        if math.isfinite(value):
            mean = weight * mean + (1 - weight) * value
            total = weight * total + 1 - weight
            result[i] = mean / total
    return result


def line(name: str, x: Numbers, values: Numbers, weight: float) -> Line:
    """A column [R] as at most MOST_POINTS points, places without a number left out."""
    soft = smoothed(values, weight)
    seen = np.isfinite(values) & np.isfinite(x)
    x, soft, raw = x[seen], soft[seen], values[seen]
    if len(x) <= MOST_POINTS:
        return Line(name, x, soft, raw)
    parts = bounds(len(x), MOST_POINTS)
    last = np.array([end - 1 for _, end in parts])
    return Line(name, x[last], soft[last], np.array([raw[start:end].mean() for start, end in parts]))


def bounds(count: int, parts: int) -> list[tuple[int, int]]:
    """Cut range(count) into at most `parts` pieces of about the same length: (start, end) each."""
    edges = np.unique(np.linspace(0, count, min(parts, count) + 1).round().astype(int))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def binned(values: Numbers, parts: list[tuple[int, int]]) -> Numbers:
    """Means of rows [R, ...] -> [parts, ...], without NaNs; NaN where there is nothing else."""
    result = np.full((len(parts), *values.shape[1:]), math.nan)
    for i, (start, end) in enumerate(parts):
        piece = values[start:end]
        counts = np.isfinite(piece).sum(axis=0)
        with np.errstate(invalid="ignore"):
            result[i] = np.where(counts > 0, np.nansum(piece, axis=0) / np.maximum(counts, 1), math.nan)
    return result


def recent_change(values: Numbers) -> float:
    """By which share the mean of the newest fifth of the reports differs from that of the fifth before.

    -0.03: 3 % lower. NaN with fewer than five reports.
    """
    finite = values[np.isfinite(values)]
    size = int(len(finite) * RECENT_SHARE)
    if size < 1:
        return math.nan
    before, now = finite[-2 * size : -size].mean(), finite[-size:].mean()
    return float(now / before - 1) if before else math.nan
