"""Which charts a page of runs has, from what the runs have written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from train.monitor.draw.axes import short
from train.monitor.draw.heat import colour, heat_map, loss_axis, signed
from train.monitor.draw.lines import Chart, draw, numbered
from train.monitor.runs import Run
from train.monitor.series import Levels, Line, grouped, levels_of, line, places, recent_change
from train.monitor.table import Table

AXES = {"steps": "step", "samples": "samples", "hours": "hours"}
MOMENTS = 6  # lines of the profile over time
SMALL_PX, LARGE_PX = 132, 240
MAP_WORDS = (
    "A row is a noise level, the most noise on top; a column is a time. The upper rows decide what goes"
    " where, the lower ones how it looks from near."
)
TITLES = {"gradient_norm": "Gradient norm", "learning_rate": "Learning rate"}


@dataclass(frozen=True)
class View:
    """How a reader wants to look: axis is a key of AXES."""

    smoothing: float = 0.6
    axis: str = "steps"
    is_log: bool = True


def noise_part(runs: Sequence[Run], view: View) -> str:
    """The loss by noise level: a map for each run, the newest profile, and how each level goes on."""
    found = [(run, levels) for run in runs if (levels := levels_of(run.table))]
    if not found:
        return ""
    scale = loss_axis([levels.losses for _, levels in found])
    maps = "".join(
        heat_map(
            run.name if len(found) > 1 else "Loss at each log-SNR, over time",
            places(run.table, view.axis),
            levels,
            scale,
            AXES[view.axis],
        )
        for run, levels in found
    )
    return (
        f'<div class="m-maps">{maps}</div><p class="m-words">{MAP_WORDS}</p>'
        f'<div class="m-grid3">{_profile(found)}{_each_level(found, view)}</div>'
    )


def _profile(found: Sequence[tuple[Run, Levels]]) -> str:
    """Loss over log-SNR: of one run at several times, of several runs now."""
    if len(found) > 1:
        lines = [_across(run.name, levels, len(levels.losses)) for run, levels in found]
        return draw(Chart("Loss over log-SNR, now", lines, "log-SNR", True, SMALL_PX))
    run, levels = found[0]
    steps = run.table.steps
    ends = np.unique(np.geomspace(1, max(1, len(steps)), MOMENTS).round().astype(int))
    lines = [_across(f"step {short(steps[end - 1])}", levels, end) for end in ends if end <= len(steps)]
    shades = [colour(0.9 - 0.65 * i / max(1, len(lines) - 1)) for i in range(len(lines))]
    note = f"{lines[0].name} to {short(steps[-1])}, light to dark" if lines else ""
    chart = Chart("Loss over log-SNR", lines, "log-SNR", True, SMALL_PX, shades, note=note, has_key=False)
    return draw(chart)


def _across(name: str, levels: Levels, end: int) -> Line:
    """The losses of all levels at report number `end`, from 1."""
    x, y = np.array(levels.centres), levels.losses[end - 1] if len(levels.losses) else np.zeros(0)
    seen = np.isfinite(y)
    return Line(name, x[seen], y[seen], y[seen]) if len(y) else Line(name, y, y, y)


def _each_level(found: Sequence[tuple[Run, Levels]], view: View) -> str:
    centres = sorted({centre for _, levels in found for centre in levels.centres})
    charts = []
    for centre in centres:
        lines, changes = [], []
        for run, levels in found:
            if centre in levels.centres:
                values = levels.losses[:, levels.centres.index(centre)]
                # Not smoothed: the training itself reports means over about 50 steps.
                lines.append(line(run.name, places(run.table, view.axis), values, 0.0))
                changes.append(recent_change(values))
        note = f"{percent(changes[0])} lately" if len(changes) == 1 and math.isfinite(changes[0]) else ""
        title = f"log-SNR {signed(centre)}"
        charts.append(draw(Chart(title, lines, AXES[view.axis], view.is_log, SMALL_PX, note=note)))
    return "".join(charts)


def loss_part(runs: Sequence[Run], view: View) -> str:
    """The losses of all players, large; of several runs, one chart for each of their losses."""
    names = _names(runs, "loss")
    players = {name.rpartition("/")[0] for name in names}
    groups = [names] if len(runs) == 1 and len(players) == 1 else [[name] for name in names]
    return _charts(runs, groups, view, LARGE_PX, "Loss")


def course_part(runs: Sequence[Run], view: View) -> str:
    """Gradient norm and learning rate."""
    parts = []
    for key, title in TITLES.items():
        names = _names(runs, key)
        groups = [[name] for name in names] if len(runs) > 1 else [names] if names else []
        is_log = view.is_log and key == "gradient_norm"
        parts.append(_charts(runs, groups, View(view.smoothing, view.axis, is_log), SMALL_PX, title))
    return "".join(parts)


def speed_part(runs: Sequence[Run], view: View) -> str:
    """Samples per second, share of data wait, and memory if it is recorded."""
    linear = View(view.smoothing, view.axis, False)
    speeds, memory = ([[name] for name in _names(runs, key)] for key in ("speed", "memory"))
    shares = [_in_percent(run) for run in runs]
    waits = [[name] for name in _names(shares, "wait")]
    return (
        _charts(runs, speeds, linear, SMALL_PX, "Samples per second")
        + _charts(shares, waits, linear, SMALL_PX, "Waiting for data", " %")
        + _charts(runs, memory, linear, SMALL_PX, "")
    )


def others_part(runs: Sequence[Run], view: View) -> str:
    """What else the recipe reports."""
    linear = View(view.smoothing, view.axis, False)
    return _charts(runs, [[name] for name in _names(runs, "others")], linear, SMALL_PX, "")


def _names(runs: Sequence[Run], key: str) -> list[str]:
    """Columns of one kind in any of the runs, those with nothing but zeros left out."""
    known: dict[str, bool] = {}
    for run in runs:
        for name in grouped(list(run.table.columns))[key]:
            values = run.table.columns[name]
            known[name] = known.get(name, False) or bool(np.nan_to_num(values).any())
    return [name for name, tells in known.items() if tells]


def _charts(
    runs: Sequence[Run],
    groups: Sequence[Sequence[str]],
    view: View,
    height_px: int,
    title: str,
    unit: str = "",
) -> str:
    drawn = []
    for names in groups:
        lines = [
            line(words(name) if len(runs) == 1 else run.name, places(run.table, view.axis), v, view.smoothing)
            for run in runs
            for name in names
            if (v := run.table.columns.get(name)) is not None
        ]
        shown = title if len(names) > 1 and title else _title(title, names[0])
        marks = restarts(runs[0], view.axis) if len(runs) == 1 else ()
        chart = Chart(shown, lines, AXES[view.axis], view.is_log, height_px, marks=marks, unit=unit)
        drawn.append(draw(chart))
    return "".join(drawn)


def _title(title: str, name: str) -> str:
    player, _, last = name.rpartition("/")
    if last == "loss_unweighted":
        return words(last)
    return f"{title or words(last)}{f', {player}' if player else ''}"


def words(name: str) -> str:
    """A column's name as a title."""
    return name.replace("_", " ").replace("/", " ").capitalize()


def restarts(run: Run, axis: str) -> list[tuple[float, str]]:
    """Where the run was started again, on the axis."""
    x, steps, found = places(run.table, axis), run.table.steps, []
    for start in run.starts[1:]:
        step = start.get("from_step")
        if isinstance(step, int) and len(steps):
            place = float(np.interp(step, steps, x))
            found.append((place, f"started again after step {step}"))
    return found


def percent(change: float) -> str:
    """A change as a share: −3 %."""
    return f"{100 * change:+.1f} %".replace("-", "−")


def _in_percent(run: Run) -> Run:
    names = grouped(list(run.table.columns))["wait"]
    columns = {name: 100 * v if name in names else v for name, v in run.table.columns.items()}
    return replace(run, table=Table(columns))


def swatch(index: int, name: str) -> str:
    """A run's name in its colour."""
    return f'<span class="m-key" style="--m-line:{numbered(index)}">{escape(name)}</span>'
