"""The plot of the ratios."""

from pathlib import Path
from typing import Any

from benchmarks.results import Results

OURS, LIMIT, PEER = "#2a5bd7", "#c33", "#999"


def ratios(results: Results) -> list[tuple[str, float, float | None]]:
    """Label, seconds of ours over the peer's, and the most that this is to be, of each row that has them."""
    found = []
    for row in results.rows.values():
        figures, targets = row["found"]["figures"], row["targets"]
        for figure, share in (("ratio", lambda value: value), ("speed", lambda value: 1 / value)):
            if figure in figures:
                limit = share(targets[figure]["value"]) if figure in targets else None
                found.append((row["what"], share(figures[figure]), limit))
    return found


def save_plot(results: list[Results], path: Path) -> bool:
    """Draw all machines' ratios, one panel each. Returns False, and draws nothing, where there are none."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(each, rows) for each in results if (rows := ratios(each))]
    if not panels:
        return False
    counts = [len(rows) for _, rows in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, sum(0.5 * count + 1.1 for count in counts)),
        height_ratios=[count + 1.5 for count in counts],
        squeeze=False,
        layout="constrained",
    )
    for axis, (each, rows) in zip(axes[:, 0], panels, strict=True):
        draw(axis, each, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def draw(axis: Any, results: Results, rows: list[tuple[str, float, float | None]]) -> None:
    """One machine's panel."""
    labels, values, limits = zip(*rows, strict=True)
    places = range(len(rows))
    axis.barh(places, values, color=OURS, height=0.55)
    for place, value, limit in zip(places, values, limits, strict=True):
        axis.annotate(f"{value:.2f}", (value, place), (4, 0), textcoords="offset points", va="center")
        if limit is not None:
            axis.plot([limit, limit], [place - 0.4, place + 0.4], color=LIMIT, linewidth=2)
    axis.axvline(1.0, color=PEER, linestyle="--", linewidth=1)
    axis.set_yticks(places, labels)
    axis.invert_yaxis()
    axis.set_xlim(0, max(1.1, *(1.15 * value for value in values)))
    machine = results.machine
    title = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    small = ", tiny sizes: no measurement" if results.small else ""
    axis.set_title(title + small, loc="left", fontsize=10)
    axis.set_xlabel("seconds of ours over the peer's (dashed: as fast; red: the target)", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
