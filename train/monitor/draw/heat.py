"""The loss by noise level over time as a map of colours."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from train.monitor.draw.axes import Axis, fitting, plain, short
from train.monitor.draw.lines import SIZE, frame
from train.monitor.series import Levels, binned, bounds
from train.monitor.table import Numbers

MOST_COLUMNS = 160
ROW_PX = 40
# From low to high loss, even steps of lightness: dark blue, violet, rose, orange, pale yellow.
SCALE = ("#16204a", "#453081", "#842e83", "#c13f6d", "#ea6a4b", "#f7a447", "#f9e6a0")


def colour(share: float) -> str:
    """The colour at a place of SCALE, 0 to 1."""
    at = min(max(share, 0.0), 1.0) * (len(SCALE) - 1)
    first = min(int(at), len(SCALE) - 2)
    pairs = zip(_rgb(SCALE[first]), _rgb(SCALE[first + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (at - first)):02x}" for a, b in pairs)


def _rgb(code: str) -> tuple[int, ...]:
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def loss_axis(losses: Sequence[Numbers]) -> Axis:
    """One scale of colours, logarithmic, for all these losses."""
    return fitting(np.concatenate([each.ravel() for each in losses]), is_log=True, margin=0)


def heat_map(title: str, x: Numbers, levels: Levels, scale: Axis, x_name: str) -> str:
    """A figure: time to the right, a row for each log-SNR with the least noise below. x: [R]"""
    seen = np.isfinite(x) & np.isfinite(levels.losses).any(axis=1)
    if not seen.any():
        return _figure(title, "", '<p class="m-none">no numbers yet</p>')
    x, losses = x[seen], levels.losses[seen]
    parts = bounds(len(x), MOST_COLUMNS)
    means = binned(losses, parts)
    ends = np.array([x[end - 1] for _, end in parts])
    edges = np.concatenate([[0.0 if parts[0][0] == 0 else x[0]], ends])
    axis = Axis(float(edges[0]), max(float(edges[-1]), float(edges[0]) + 1e-9))
    rows = range(len(levels.centres))  # the first has the most noise and lies on top
    cells = "".join(_row(row, len(rows), axis.place(edges), means[:, row], scale) for row in rows)
    values: dict[str, Any] = {
        "heat": [[plain(value) for value in means[:, row]] for row in rows],
        "names": [f"log-SNR {signed(centre)}" for centre in levels.centres],
        "edges": [plain(value) for value in edges],
        "x": [axis.low, axis.high],
        "name": x_name,
    }
    names = [(1 - (row + 0.5) / len(rows), signed(levels.centres[row])) for row in rows]
    drawn = frame(axis.marks(), names, cells, values, ROW_PX * len(rows))
    return _figure(title, _key(scale), drawn)


def signed(centre: float) -> str:
    """A log-SNR with its sign, as text."""
    return f"{centre:+g}".replace("-", "−") if centre else "0"


def _row(row: int, rows: int, edges: Numbers, losses: Numbers, scale: Axis) -> str:
    """Neighbours of one colour are one cell."""
    top, height = SIZE * row / rows, SIZE / rows
    cells, shares = [], scale.place(losses)
    fills = [colour(share) if math.isfinite(share) else "" for share in shares]
    start = 0
    for i in range(1, len(fills) + 1):
        if i < len(fills) and fills[i] == fills[start]:
            continue
        if fills[start]:
            left, right = SIZE * edges[start], SIZE * edges[i]
            outline = f"M{left:.1f} {top:.1f}H{right:.1f}v{height:.1f}H{left:.1f}z"
            cells.append(f'<path fill="{fills[start]}" d="{outline}"/>')
        start = i
    return "".join(cells)


def _figure(title: str, key: str, drawn: str) -> str:
    caption = f'<figcaption><span class="m-title">{escape(title)}</span>{key}</figcaption>'
    return f'<figure class="m-chart m-heat">{caption}{drawn}</figure>'


def _key(scale: Axis) -> str:
    """Which colour is which loss."""
    stops = ", ".join(SCALE)
    return (
        f'<span class="m-scale">{short(scale.low)}<i style="background:linear-gradient(90deg,{stops})"></i>'
        f"{short(scale.high)}</span>"
    )
