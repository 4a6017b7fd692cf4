"""The plots of docs/maths.md are drawn by its script, and the page shows all of them."""

import re
from pathlib import Path
from xml.etree import ElementTree

from scripts.maths_plots import IMAGES, PLOTS, main

PAGE = Path(__file__).parents[2] / "docs" / "maths.md"


def test_the_script_draws_every_plot_of_the_page(tmp_path: Path) -> None:
    shown = re.findall(r"\]\(images/(maths_\w+\.svg)\)", PAGE.read_text())
    assert sorted(shown) == sorted(f"maths_{name}.svg" for name in PLOTS)
    assert main([f"out={tmp_path}"]) == 0
    for name in shown:
        drawn, kept = (lines(folder / name) for folder in (tmp_path, IMAGES))
        assert drawn == kept > 4, f"{name}: drawn anew it has other lines; run python -m scripts.maths_plots"


def lines(file: Path) -> int:
    """The number of lines and marks in a plot; their places may differ by a rounding."""
    groups = ElementTree.parse(file).getroot().iter("{http://www.w3.org/2000/svg}g")
    return sum(group.get("id", "").startswith("line2d") for group in groups)


def test_a_mistake_is_one_line_and_status_2(capsys) -> None:
    assert main(["nothing=1"]) == 2
    assert capsys.readouterr().err == "error: nothing: unknown key; expected one of: out\n"
