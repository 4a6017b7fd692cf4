"""The plot of `inspect`: sizes, aspect ratios, buckets and captions on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from dataset_tools.inspecting.findings import LONG_CAPTION_WORDS, caption_words
from dataset_tools.inspecting.survey import Picture

BARS = "#4c72b0"
MARKS = "#c44e52"


def save_plot(path: Path, pictures: Sequence[Picture], found: dict[str, Any]) -> None:
    """Draw the findings of at least one picture into an image file. Raises ValueError for its format."""
    figure = Figure(figsize=(13, 10), layout="constrained")
    sizes, ratios, captions, table = figure.subplots(2, 2).flat
    counts = f"{found['samples']} samples in {found['shards']} shards, {len(found['broken'])} broken"
    figure.suptitle(counts, fontsize=15)
    _draw_sizes(sizes, pictures)
    _draw_ratios(ratios, pictures, found["buckets"])
    _draw_captions(captions, pictures, found["captions"])
    _draw_buckets(table, found["buckets"])
    figure.savefig(path, dpi=110)


def _draw_sizes(axes: Axes, pictures: Sequence[Picture]) -> None:
    """Histogram of the side of a square of the same area: what counts for the resolution."""
    sides = np.sqrt([picture.width_px * picture.height_px for picture in pictures])
    steps = [step * 10**power for power in range(6) for step in (1, 1.5, 2, 3, 5, 7)]
    _log_histogram(axes, sides, {step: f"{step:g}" for step in steps})
    axes.set(title="Size", xlabel="√(width × height), px", ylabel="pictures")


def _draw_ratios(axes: Axes, pictures: Sequence[Picture], buckets: Sequence[dict[str, Any]]) -> None:
    """Histogram of the aspect ratios, with the buckets' own."""
    ratios = np.array([picture.width_px / picture.height_px for picture in pictures])
    wide = ((1, 1), (3, 2), (2, 1), (3, 1), (4, 1), (6, 1), (10, 1))
    named = {width / height: f"{width}:{height}" for w, h in wide for width, height in ((w, h), (h, w))}
    _log_histogram(axes, ratios, named)
    for row in buckets:
        axes.axvline(row["width_px"] / row["height_px"], color=MARKS, linewidth=0.8, linestyle=":")
    axes.set(title="Aspect ratio (dotted: buckets in use)", xlabel="width : height", ylabel="pictures")


def _draw_captions(axes: Axes, pictures: Sequence[Picture], captions: dict[str, Any]) -> None:
    words = np.array([caption_words(picture) for picture in pictures if picture.caption])
    title = f"Caption length ({captions['missing']} missing, {captions['empty']} empty)"
    axes.set(title=title, xlabel="words", ylabel="captions")
    if not len(words):
        return
    step = max(1, int(words.max()) // 40)
    edges = np.arange(0.5, words.max() + step + 0.5, step).tolist()
    axes.hist(words, bins=edges, color=BARS, edgecolor="white")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if captions["long"]:
        axes.axvline(LONG_CAPTION_WORDS, color=MARKS, linestyle=":", label="may be cut from here on")
        axes.legend(loc="upper right")


def _draw_buckets(axes: Axes, buckets: Sequence[dict[str, Any]]) -> None:
    """A table of the buckets: how many pictures go there, and what is cut off or enlarged."""
    axes.set_axis_off()
    axes.set_title("Buckets")
    rows = [
        [
            f"{row['width_px']} × {row['height_px']}",
            f"{row['width_px'] / row['height_px']:.2f}",
            str(row["pictures"]),
            f"{row['mean_cropped']:.1%}",
            f"{row['max_cropped']:.1%}",
            f"{row['enlarged']}",
        ]
        for row in buckets
    ]
    titles = ["bucket, px", "ratio", "pictures", "cropped", "at most", "enlarged"]
    table = axes.table(rows, colLabels=titles, loc="upper center", cellLoc="right", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(9 if len(rows) > 16 else 10)
    table.scale(1, min(1.5, 23 / (len(rows) + 1)))


def _log_histogram(axes: Axes, values: np.ndarray, ticks: dict[float, str]) -> None:
    """Draw a histogram whose horizontal axis is logarithmic, labelled where the ticks lie on it."""
    low, high = values.min(), values.max()
    margin = 1.02 if high > low * 1.05 else 1.5  # a single value gets a bar that is not all of the axis
    edges = np.geomspace(low / margin, high * margin, 42)
    axes.hist(values, bins=edges.tolist(), color=BARS, edgecolor="white")
    axes.set_xscale("log")
    shown = {value: label for value, label in sorted(ticks.items()) if edges[0] <= value <= edges[-1]}
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(shown), list(shown.values()))
