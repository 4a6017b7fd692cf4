"""Plots of the notebooks."""

import io
from typing import Any

import matplotlib
import pytest
from PIL import Image

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from inference import plots


def test_a_plot_is_shown_once_small_and_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(plots, "display", shown.append)
    with plt.rc_context():
        plots.use_style()
        figure, axis = plt.subplots(figsize=(4, 2))
        for power in range(4):
            axis.plot([x**power for x in range(50)], label=f"x^{power}")
        axis.legend()
        whole = io.BytesIO()
        figure.savefig(whole, format="png")
        plots.show_plot(figure)
    assert len(shown) == 1 and not plt.get_fignums()
    with Image.open(io.BytesIO(shown[0].data)) as small, Image.open(whole) as before:
        assert small.size == before.size
        difference = [
            abs(a - b)
            for a, b in zip(small.convert("RGB").tobytes(), before.convert("RGB").tobytes(), strict=True)
        ]
    assert sum(difference) < 0.5 * len(difference)
    assert len(shown[0].data) < 0.6 * len(whole.getvalue())


def test_lines_differ_in_colour_and_in_dashes() -> None:
    with plt.rc_context():
        plots.use_style()
        looks = list(matplotlib.rcParams["axes.prop_cycle"])
    for name in ("color", "linestyle"):
        assert len({str(look[name]) for look in looks}) == len(looks) == 6
