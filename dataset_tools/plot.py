"""The plot of `inspect`: sizes, aspect ratios, buckets and captions on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from dataset_tools.findings import LONG_CAPTION_WORDS, caption_words
from dataset_tools.survey import Picture

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
    axes.hist(sides, bins=_log_bins(sides), color=BARS, edgecolor="white")
    _log_axis(axes, sides, "{:.0f}")
    axes.set(title="Size", xlabel="√(width × height), px", ylabel="pictures")


def _draw_ratios(axes: Axes, pictures: Sequence[Picture], buckets: Sequence[dict[str, Any]]) -> None:
    """Histogram of the aspect ratios, with the buckets' own."""
    ratios = np.array([picture.width_px / picture.height_px for picture in pictures])
    axes.hist(ratios, bins=_log_bins(ratios), color=BARS, edgecolor="white")
    for row in buckets:
        axes.axvline(row["width_px"] / row["height_px"], color=MARKS, linewidth=0.8, linestyle=":")
    _log_axis(axes, ratios, "{:.3g}")
    axes.set(title="Aspect ratio (dotted: buckets in use)", xlabel="width / height", ylabel="pictures")


def _draw_captions(axes: Axes, pictures: Sequence[Picture], captions: dict[str, Any]) -> None:
    words = np.array([caption_words(picture) for picture in pictures if picture.caption])
    axes.set(title="Caption length", xlabel="words", ylabel="captions")
    note = f"{captions['missing']} missing, {captions['empty']} empty"
    axes.text(0.98, 0.96, note, transform=axes.transAxes, ha="right", va="top")
    if not len(words):
        return
    step = max(1, int(words.max()) // 40)
    edges = np.arange(0.5, words.max() + step + 0.5, step).tolist()
    axes.hist(words, bins=edges, color=BARS, edgecolor="white")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if captions["long"]:
        axes.axvline(LONG_CAPTION_WORDS, color=MARKS, linestyle=":", label="may be cut from here on")
        axes.legend(loc="center right")


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


def _log_bins(values: np.ndarray) -> list[float]:
    """Return the edges of 40 bars of equal width on a logarithmic axis."""
    low, high = values.min(), values.max()
    margin = 1.02 if high > low * 1.05 else 1.5  # a single value gets a bar that is not all of the axis
    return np.geomspace(low / margin, high * margin, 41).tolist()


def _log_axis(axes: Axes, values: np.ndarray, label: str) -> None:
    """Make the horizontal axis logarithmic, with ticks at even steps over the range that is there."""
    axes.set_xscale("log")
    edges = _log_bins(values)
    axes.xaxis.set_major_locator(FixedLocator(np.geomspace(edges[0], edges[-1], 8).tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: label.format(value)))
    axes.xaxis.set_minor_locator(NullLocator())
