"""Lines over an axis, with values under the pointer."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from train.monitor.draw.axes import Axis, Mark, fitting, plain, short
from train.monitor.series import Line
from train.monitor.table import Numbers

COLOURS = 8  # --m-0, --m-1, ... of the style sheet
SIZE = 1000  # of the drawing's own coordinates, stretched over whatever place there is
OUTLIERS = 0.5  # per cent of the raw values that may lie outside at either end


@dataclass(frozen=True)
class Chart:
    """title: what is drawn. colours: of each line, as CSS writes them; if None, the style sheet's in turn.
    marks: places of upright lines with their words, such as where a run was started again."""

    title: str
    lines: Sequence[Line]
    x_name: str = "step"
    is_log: bool = False
    height_px: int = 180
    colours: Sequence[str] | None = None
    marks: Sequence[tuple[float, str]] = ()
    unit: str = ""
    note: str = ""
    has_key: bool = True  # which line is which, where there are several

    def colour(self, index: int) -> str:
        """Of line number `index`."""
        return self.colours[index] if self.colours is not None else numbered(index)


def numbered(index: int) -> str:
    """A colour of the style sheet."""
    return f"var(--m-{index % COLOURS})"


def draw(chart: Chart) -> str:
    """A figure; where there is nothing to draw, one that says so."""
    drawn = [line for line in chart.lines if len(line.x)]
    if not drawn:
        return f'<figure class="m-chart">{_caption(chart)}<p class="m-none">no numbers yet</p></figure>'
    x = fitting(np.concatenate([line.x for line in drawn]), margin=0)
    y = fitting(np.concatenate([_inner(line) for line in drawn]), chart.is_log)
    paths = "".join(_paths(line, chart.colour(i), x, y) for i, line in enumerate(chart.lines) if len(line.x))
    dots = "".join(_dot(line, chart.colour(i), x, y) for i, line in enumerate(chart.lines) if len(line.x))
    ups = y.marks(4 if chart.height_px < 150 else 5)
    grid = "".join(f'<path class="m-grid" d="M0 {_y(place)}H{SIZE}"/>' for place, _ in ups)
    values = {"x": [x.low, x.high], "y": [y.low, y.high], "log": y.is_log, "name": chart.x_name}
    values["lines"] = [_values(line, chart.colour(i)) for i, line in enumerate(chart.lines)]
    drawing = grid + _marks(chart.marks, x) + paths
    framed = frame(x.marks(), ups, drawing, values, chart.height_px, dots)
    return f'<figure class="m-chart">{_caption(chart)}{framed}</figure>'


def frame(
    alongs: Sequence[Mark], ups: Sequence[Mark], drawing: str, values: Any, height_px: int, above: str = ""
) -> str:
    """Axes around a drawing whose coordinates are 0 to SIZE, y downwards. values: for the pointer."""
    left = "".join(f'<span style="bottom:{100 * p:.2f}%">{text}</span>' for p, text in ups if 0 <= p <= 1)
    below = "".join(_below(p, text) for p, text in alongs if 0 <= p <= 1)
    return (
        f'<div class="m-frame" style="--m-height:{height_px}px"><div class="m-left">{left}</div>'
        f'<div class="m-plot" tabindex="0" data-values="{escape(json.dumps(values))}">'
        f'<svg viewBox="0 0 {SIZE} {SIZE}" preserveAspectRatio="none" aria-hidden="true">{drawing}</svg>'
        f'{above}</div><div class="m-below">{below}</div></div>'
    )


def _below(place: float, text: str) -> str:
    shift = "0" if place < 0.04 else "-100%" if place > 0.96 else "-50%"
    return f'<span style="left:{100 * place:.2f}%;translate:{shift}">{text}</span>'


def _caption(chart: Chart) -> str:
    shown = chart.has_key and len(chart.lines) > 1
    keys = "".join(
        f'<span class="m-key" style="--m-line:{chart.colour(i)}">{escape(line.name)}'
        f" <b>{_now(line, chart.unit)}</b></span>"
        for i, line in enumerate(chart.lines)
    )
    single = f'<span class="m-now">{_now(chart.lines[0], chart.unit)}</span>' if len(chart.lines) == 1 else ""
    note = f'<span class="m-note">{escape(chart.note)}</span>' if chart.note else ""
    title = f'<span class="m-title">{escape(chart.title)}</span>'
    return f"<figcaption>{title}{single}{note}{f'<div>{keys}</div>' if shown else ''}</figcaption>"


def _now(line: Line, unit: str) -> str:
    return short(float(line.y[-1])) + unit if len(line.y) else "–"


def _inner(line: Line) -> Numbers:
    """What the axis has to hold: the smooth line, and the raw one but for its few outermost values."""
    low, high = np.percentile(line.raw, [OUTLIERS, 100 - OUTLIERS])
    return np.concatenate([line.y, line.raw[(line.raw >= low) & (line.raw <= high)]])


def _paths(line: Line, colour: str, x: Axis, y: Axis) -> str:
    style = f'style="--m-line:{colour}"'
    raw, soft = path(x.place(line.x), y.place(line.raw)), path(x.place(line.x), y.place(line.y))
    faint = f'<path class="m-raw" d="{raw}" {style}/>' if raw != soft else ""
    return f'{faint}<path class="m-soft" d="{soft}" {style}/>'


def path(x: Numbers, y: Numbers) -> str:
    """Shares of the axes as an SVG path; interrupted where there is no number."""
    parts, pen = [], "M"
    for across, up in zip(x, y, strict=True):
        if math.isfinite(up) and math.isfinite(across):
            parts.append(f"{pen}{SIZE * across:.1f} {_y(up)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def _y(share: float) -> str:
    return f"{SIZE * (1 - min(max(share, -0.02), 1.02)):.1f}"


def _dot(line: Line, colour: str, x: Axis, y: Axis) -> str:
    """The newest value."""
    across, up = float(x.place(line.x[-1:])[0]), float(y.place(line.y[-1:])[0])
    if not (math.isfinite(across) and 0 <= up <= 1):
        return ""
    place = f"left:{100 * across:.2f}%;bottom:{100 * up:.2f}%"
    return f'<i class="m-dot" style="{place};--m-line:{colour}"></i>'


def _marks(marks: Sequence[tuple[float, str]], x: Axis) -> str:
    places = [(float(x.place(np.array([place]))[0]), words) for place, words in marks]
    return "".join(
        f'<path class="m-mark" d="M{SIZE * place:.1f} 0V{SIZE}"><title>{escape(words)}</title></path>'
        for place, words in places
        if 0 <= place <= 1
    )


def _values(line: Line, colour: str) -> dict[str, Any]:
    return {
        "name": line.name,
        "colour": colour,
        "x": [plain(value) for value in line.x],
        "y": [plain(value) for value in line.y],
        "raw": [plain(value) for value in line.raw],
    }
