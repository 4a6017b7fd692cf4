"""The plot of the ratios."""

import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import Results

OURS, LIMIT, FLOOR, PEER = "#2a5bd7", "#c33", "#222", "#999"
LEGEND = "seconds of ours over the peer's; dashed: as fast; red: the target; black: matrix products alone"


class Bar(NamedTuple):
    """Seconds of ours over the peer's; the most that this is to be, and the least that it could be."""

    label: str
    ratio: float
    limit: float | None
    floor: float | None


def bars(results: Results) -> list[Bar]:
    """Of all figures that compare seconds or paces."""
    found = []
    for row in results.rows.values():
        floor = row["found"]["facts"].get("floor_ratio")
        for figure, value in row["found"]["figures"].items():
            kind, _, against = figure.partition("_")
            if kind not in ("ratio", "speed"):
                continue
            target = row["targets"].get(figure, {}).get("value")
            ratio, limit = (share and (share if kind == "ratio" else 1 / share) for share in (value, target))
            label = f"{row['what']} ({against})" if against else row["what"]
            found.append(Bar(label, ratio, limit, floor))
    return found


def save_plot(results: list[Results], path: Path) -> bool:
    """Draw all machines' ratios, one panel each. Returns False, and draws nothing, where there are none."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(each, found) for each in results if (found := bars(each))]
    if not panels:
        return False
    counts = [len(found) for _, found in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, sum(0.48 * count + 0.8 for count in counts) + 0.4),
        height_ratios=[count + 1.5 for count in counts],
        squeeze=False,
        layout="constrained",
    )
    for axis, (each, found) in zip(axes[:, 0], panels, strict=True):
        draw(axis, each, found)
    figure.supxlabel(LEGEND, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def draw(axis: Any, results: Results, found: list[Bar]) -> None:
    """One machine's panel."""
    axis.barh(range(len(found)), [bar.ratio for bar in found], color=OURS, height=0.55)
    for place, bar in enumerate(found):
        for value, colour in ((bar.limit, LIMIT), (bar.floor, FLOOR)):
            if value is not None:
                axis.plot([value] * 2, [place - 0.38, place + 0.38], color=colour, linewidth=2.5)
        axis.annotate(
            f"{bar.ratio:.2f}",
            (max(bar.ratio, bar.limit or 0), place),
            (5, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axis.axvline(1.0, color=PEER, linestyle="--", linewidth=1, zorder=0)
    axis.set_yticks(range(len(found)), [textwrap.fill(bar.label, 48) for bar in found], fontsize=8.5)
    axis.invert_yaxis()
    axis.set_xlim(0, max(1.1, *(1.15 * bar.ratio for bar in found)))
    machine = results.machine
    title = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    small = ", tiny sizes: no measurement" if results.small else ""
    axis.set_title(title + small, loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
