"""What is seen of a drawing: HTML made of events and facts. Whatever visitors typed is escaped."""

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from inference.app.events import Drawing, Event, Reading, Waiting
from inference.app.words import last_part

STAGES = {"stage_c": "Stage C composes", "stage_b": "Stage B works out the details"}
SMALL_PX = 160  # up to here pixels are shown as the squares that they are
IDLE = (
    '<div class="panel empty"><p>Your picture appears here.</p>'
    '<p class="quiet">Describe it, then press Enter or Draw.</p></div>'
)


def progress(event: Event, preview: bytes | None, has_previewer: bool) -> str:
    """A drawing on its way. preview: the newest one there is."""
    if isinstance(event, Waiting):
        words = "Next in line" if event.before == 0 else f"Waiting: {event.before} before you"
        return panel("", bar(None), words)
    if isinstance(event, Reading):
        return panel("", bar(None), "Reading the networks from disk")
    assert isinstance(event, Drawing)
    seen = ""
    if preview is not None:
        data = base64.b64encode(preview).decode()
        seen = f'<img class="preview" alt="Preview" src="data:image/jpeg;base64,{data}">'
    elif not has_previewer:
        seen = '<p class="quiet">No previewer among the weights: the picture is seen when it is done.</p>'
    words = f"{STAGES[event.stage]}: step {event.step} of {event.steps}"
    if event.seconds_left is not None:
        words += f" · {duration(event.seconds_left)} left"
    return panel(seen, bar(event.share), words)


def panel(seen: str, below: str, words: str) -> str:
    """The frame with what is seen, and a line under it."""
    return (
        f'<div class="panel working"><div class="seen">{seen}</div>{below}'
        f'<p class="figures" role="status">{escape(words)}</p></div>'
    )


def bar(share: float | None) -> str:
    """A bar of progress; without a share one that only says that something is going on."""
    value = "" if share is None else f' value="{share:.3f}"'
    return f'<progress aria-label="Progress"{value}></progress>'


def duration(seconds: float) -> str:
    """Seconds in words that do not jump about."""
    if seconds < 1:
        return "less than 1 s"
    return f"{round(seconds)} s" if seconds < 100 else f"{round(seconds / 60)} min"


def problem(words: object) -> str:
    """A message in the place of a picture."""
    return f'<div class="panel problem" role="alert"><p>{escape(str(words))}</p></div>'


def stopped() -> str:
    """After Cancel."""
    return '<div class="panel empty" role="status"><p>Stopped.</p></div>'


def finished(path: Path, facts: Mapping[str, Any]) -> str:
    """A picture that is done, as its file."""
    width, height = facts["width_px"], facts["height_px"]
    small = " small" if max(width, height) <= SMALL_PX else ""
    words = escape(facts["prompt"] or "without a prompt", quote=True)
    return (
        f'<div class="panel done"><div class="seen"><img class="picture{small}" width="{width}" '
        f'height="{height}" alt="{words}" src="{address(path)}"></div></div>'
    )


def address(path: Path) -> str:
    """Of a file that the page shows, seen from the page."""
    return f"gradio_api/file={quote(path.as_posix())}"


def settings_table(facts: Mapping[str, Any]) -> str:
    """How a picture was made, for people."""
    c, b = facts["stage_c"], facts["stage_b"]
    rows = {
        "Prompt": facts["prompt"],
        "Negative prompt": facts["negative_prompt"],
        "Made by": facts["task"].replace("_", " "),
        "Seed": facts["seed"],
        "Size": f"{facts['width_px']} × {facts['height_px']}",
        "Strength": facts["strength"] if facts["image"] else None,
        "Steps": f"{c['steps']} ({c['sampler']}), decoder {b['steps']} ({b['sampler']})",
        "Guidance": f"{c['guidance']}, decoder {b['guidance']}",
        "LoRAs": ", ".join(f"{last_part(each['weights'])} {each['weight']:g}" for each in facts["loras"]),
        "ControlNet": ", ".join(f"{last_part(e['weights'])} {e['scale']:g}" for e in facts["controls"]),
        "Image prompt": image_prompt(facts["image_prompt"]),
    }
    shown = {name: value for name, value in rows.items() if value not in (None, "")}
    cells = (f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in shown.items())
    return f'<dl class="settings figures">{"".join(cells)}</dl>'


def image_prompt(settings: Mapping[str, Any]) -> str:
    """How many pictures, and how strongly."""
    number = len(settings["images"])
    return f"{number} picture{'s' * (number > 1)}, {settings['scale']:g}" if number else ""
