"""The page itself: what `charts` and `facts` make of the runs, looked at again every few seconds."""

import json
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from modules.web import page
from train.monitor import charts, facts
from train.monitor.reader import Reader
from train.monitor.runs import Run

HERE = Path(__file__).parent
MOST_CHOSEN = 8  # runs in one plot: as many as there are colours
SHEETS = """\
<p class="m-none">No sample sheet yet; run.sample_every says how often one is drawn.</p>
<div class="m-sheets" hidden>
<label><span>After</span><input type="range" min="0" max="0" aria-label="Steps"><output></output></label>
<div class="m-sheets-pictures"></div>
</div>"""


def asset(name: str) -> str:
    """A file that lies beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def build(reader: Reader, refresh_s: float) -> gr.Blocks:
    """The page for a folder of runs."""
    with page("Kaskade monitor") as blocks:
        chosen, controls, live = _controls(reader)
        head = _html("m-head-part")
        gr.HTML(js_on_load=asset("hover.js"), visible="hidden")
        parts = [_html(name) for name in ("m-noise-part", "m-curves-part")]
        gr.HTML("<h2>Sample sheets</h2>", elem_classes="m-part", apply_default_css=False)
        sheets = gr.HTML(_sheet_list([]), elem_id="m-sheets-list", visible="hidden")

        def sheet_of(asked: Any) -> str:
            """Called by the page's script, with a run's name and a step."""
            return reader.sheet(*asked) if isinstance(asked, list) and len(asked) == 2 else ""

        gr.HTML(SHEETS, js_on_load=asset("sheets.js"), server_functions=[sheet_of], elem_classes="m-part")
        parts.append(_html("m-facts-part"))
        seen = gr.State(None)
        inputs, outputs = [chosen, *controls, seen], [head, *parts, sheets, chosen, seen]

        def refresh(names: list[str], smoothing: float, axis: str, is_log: bool, before: Any) -> list[Any]:
            view = charts.View(min(max(float(smoothing), 0.0), 0.99), axis, bool(is_log))
            return _refreshed(reader, names or [], view, before)

        tick = gr.Timer(refresh_s)
        for event in (blocks.load, tick.tick, *(each.change for each in (chosen, *controls))):
            event(refresh, inputs, outputs, show_progress="hidden", queue=True, api_visibility="private")
        live.change(
            lambda on: gr.Timer(active=on), live, tick, show_progress="hidden", api_visibility="private"
        )
    return blocks


def _controls(reader: Reader) -> tuple[gr.Dropdown, list[Any], gr.Checkbox]:
    names = reader.names
    gr.HTML("<h1>Training</h1>", elem_classes="m-part m-top prose", apply_default_css=False)
    with gr.Row(elem_classes="m-controls"):
        chosen = gr.Dropdown(
            names,
            value=names[:1],
            multiselect=True,
            max_choices=MOST_CHOSEN,
            label="Runs",
            scale=4,
            min_width=260,
            visible=len(names) > 1,
        )
        axis = gr.Radio(
            [(word, key) for key, word in charts.AXES.items()], value="steps", label="Along", min_width=240
        )
        smoothing = gr.Slider(0, 0.99, 0.6, step=0.01, label="Smoothing", scale=2, min_width=200, buttons=[])
        with gr.Column(scale=1, min_width=150):
            is_log = gr.Checkbox(True, label="Log axis")
            live = gr.Checkbox(True, label="Live")
    return chosen, [smoothing, axis, is_log], live


def _refreshed(reader: Reader, names: Sequence[str], view: charts.View, before: Any) -> list[Any]:
    """Values of the outputs; what did not change is left alone, and with it the reader's place in it."""
    known = reader.names
    runs = reader.chosen(names) or reader.chosen(known[:1])
    now = {
        "view": repr(view),
        "runs": [
            (run.name, run.written, len(run.table.steps), len(run.starts), run.problems) for run in runs
        ],
        "sheets": [(run.name, len(run.sheets)) for run in runs],
        "known": sorted(known),  # which of them wrote last changes all the time
    }
    before = before or {}
    changed = any(now[key] != before.get(key) for key in ("view", "runs"))
    drawn = [_noise(runs, view), _curves(runs, view), _facts(runs)] if changed else [gr.skip()] * 3
    sheets = _sheet_list(runs) if now["sheets"] != before.get("sheets") else gr.skip()
    choice = gr.skip() if now["known"] == before.get("known") else _choice(known, names, runs)
    return [facts.head(runs, time.time()), *drawn, sheets, choice, now]


def _choice(known: Sequence[str], names: Sequence[str], runs: Sequence[Run]) -> gr.Dropdown:
    """The runs there are now. Those that were chosen stay, unless one of them is no more."""
    kept: dict[str, Any] = {} if set(names) <= set(known) else {"value": [run.name for run in runs]}
    return gr.Dropdown(known, visible=len(known) > 1, **kept)


def _noise(runs: Sequence[Run], view: charts.View) -> str:
    drawn = charts.noise_part(runs, view)
    return f"<h2>Loss by noise level</h2>{drawn}" if drawn else ""


def _curves(runs: Sequence[Run], view: charts.View) -> str:
    drawn = f'<h2>Loss</h2><div class="m-grid2">{charts.loss_part(runs, view)}</div>'
    small = charts.course_part(runs, view) + charts.speed_part(runs, view) + charts.others_part(runs, view)
    return f'{drawn}<h2>Gradients, speed, and what else is measured</h2><div class="m-grid3">{small}</div>'


def _facts(runs: Sequence[Run]) -> str:
    parts = {"Data": facts.health(runs), "Starts": facts.starts(runs), "Settings": facts.settings(runs)}
    drawn = "".join(f"<h2>{title}</h2>{each}" for title, each in parts.items())
    return f'<div class="m-facts">{drawn}</div>'


def _sheet_list(runs: Sequence[Run]) -> str:
    listed = [{"name": run.name, "steps": [sheet.step for sheet in reversed(run.sheets)]} for run in runs]
    return f'<div data-runs="{escape(json.dumps(listed))}"></div>'


def _html(name: str) -> gr.HTML:
    return gr.HTML("", elem_id=name, elem_classes="m-part", apply_default_css=False)
