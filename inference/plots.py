"""Plots of the notebooks: one look, and pictures of few kilobytes."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Image as Shown
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

STYLE = Path(__file__).with_name("plots.mplstyle")
NUM_COLOURS = 200  # of the few that a plot has; a third of the size


def use_style() -> None:
    """Draw all plots from here on in the look of plots.mplstyle."""
    plt.style.use(STYLE)


def show_plot(figure: Figure) -> None:
    """Show a figure as a small PNG, and close it."""
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png")
    with Image.open(whole) as opened:
        few = opened.convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE)
    few.save(small, "png", optimize=True)
    display(Shown(data=small.getvalue(), format="png"))
    plt.close(figure)
