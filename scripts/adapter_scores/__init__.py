"""What the demo's adapters are asked to do, and what they do: one module per kind, `score(run, out, device)`.

python -m scripts.adapter_scores lcm --run outputs/demo/lcm --out outputs/demo/adapters/lcm

A module's `score` draws pictures with the run's weights (the cascade's own networks lie in the folders
beside it), writes a contact sheet (sheet.png, and other PNGs if it likes) into the existing folder `out`, and
returns plain data: {"figures": [figure(...), ...]} and whatever else is worth keeping.
"""

from typing import Any, Literal


def figure(
    what: str,
    measured: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: Literal["%", "s", "dB", ""] = "%",
) -> dict[str, Any]:
    """One line of the table of figures, as plain data.

    measured: a share (0 to 1) for the unit %, else in that unit. at_least, at_most: what is asked; neither
    for a figure that is only told.
    """
    asked = {"at_least": at_least, "at_most": at_most}
    return {"what": what, "measured": measured, "unit": unit} | {
        name: value for name, value in asked.items() if value is not None
    }


def figure_texts(line: dict[str, Any]) -> tuple[str, str, str]:
    """A figure in words: what, what was asked, what was measured."""
    words = {"at_least": "≥", "at_most": "≤"}
    asked = [f"{word} {amount(line[name], line['unit'])}" for name, word in words.items() if name in line]
    return line["what"], ", ".join(asked), amount(line["measured"], line["unit"])


def amount(value: float, unit: str) -> str:
    """A number with its unit: shares as percent, seconds as minutes where there are many."""
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "s" and value >= 60:
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds:02d} s"
    return f"{value:.3g} {unit}".strip()


def is_met(line: dict[str, Any]) -> bool:
    """Whether a figure is what was asked (one that is only told always is)."""
    return line.get("at_least", -float("inf")) <= line["measured"] <= line.get("at_most", float("inf"))
