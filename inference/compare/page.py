"""The page that takes votes; nothing in it says which picture is whose until the results are opened."""

import base64
import io
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from inference.compare import report
from inference.compare.plan import Plan, Question
from inference.compare.votes import ASPECTS, Ballot, Vote, chosen, is_swapped, name_of, order
from modules.web import page

HERE = Path(__file__).parent
SIDES = {"left": "Left", "tie": "Tie", "right": "Right"}
KEYS = (
    "<p class='quiet'>Keys: <kbd>←</kbd> left, <kbd>↓</kbd> tie, <kbd>→</kbd> right,"
    " <kbd>Backspace</kbd> one back.</p>"
)


class Shown(NamedTuple):
    """Where a voter is: place in their own order, and the aspect that is asked for now."""

    voter: str
    place: int
    aspect: str


def asset(name: str) -> str:
    """A file that lies beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def build(folder: Path, plan: Plan) -> gr.Blocks:
    """The page of a comparison whose pictures are made."""
    ballot = Ballot(folder, plan)
    with page("Kaskade compare") as blocks:
        gr.HTML("<h1>Two pictures, one prompt</h1>", elem_classes="c-part prose", apply_default_css=False)
        state = gr.State(None)
        with gr.Column(elem_id="c-door") as door:
            gr.HTML(_welcome(plan), elem_classes="c-part", apply_default_css=False)
            with gr.Row(equal_height=True):
                name = gr.Textbox(label="Your name", placeholder="for going on later", scale=4)
                begin = gr.Button("Begin", variant="primary", scale=1, min_width=120)
        with gr.Column(visible=False, elem_id="c-desk") as desk:
            view = gr.HTML("", elem_id="c-view", elem_classes="c-part", apply_default_css=False)
            with gr.Row(elem_id="c-choices", equal_height=True):
                buttons = {key: gr.Button(word, elem_id=f"c-{key}") for key, word in SIDES.items()}
            with gr.Row(elem_id="c-last-row"):
                back = gr.Button("One back", elem_id="c-back", size="sm", scale=0, min_width=110)
                gr.HTML(KEYS, elem_classes="c-part", apply_default_css=False)
        with gr.Accordion("Results (they say which is which)", open=False, elem_id="c-results"):
            show = gr.Button("Count the votes now", size="sm", elem_id="c-count")
            told = gr.HTML("", elem_classes="c-part", apply_default_css=False)
        gr.HTML(js_on_load=asset("keys.js"), visible="hidden")
        desk_parts = [state, view, door, desk, *buttons.values()]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        def enter(text: str) -> list[Any]:
            if not (voter := name_of(text or "")):
                raise gr.Error("Please give a name: votes are kept under it.", print_exception=False)
            return _render(folder, ballot, first_open(ballot, voter, 0))

        def vote(side: str, shown: Shown | None) -> list[Any]:
            return _render(folder, ballot, take(ballot, Shown(*shown), side)) if shown else [gr.skip()] * 7

        def one_back(shown: Shown | None) -> list[Any]:
            return _render(folder, ballot, step_back(Shown(*shown))) if shown else [gr.skip()] * 7

        gr.on([begin.click, name.submit], enter, name, desk_parts, **quiet)
        for key, button in buttons.items():
            given = gr.State(key)
            button.click(vote, [given, state], desk_parts, trigger_mode="once", **quiet)
        back.click(one_back, state, desk_parts, **quiet)
        show.click(lambda: report.of_folder(folder, plan), None, told, **quiet)
    return blocks


def first_open(ballot: Ballot, voter: str, start: int) -> Shown:
    """The first question from `start` on, then from the beginning, of which this voter has not said all."""
    said, questions = ballot.of(voter), order(ballot.plan, voter)
    for place in [*range(start, len(questions)), *range(start)]:
        for aspect in ASPECTS:
            if aspect not in said.get(questions[place].number, {}):
                return Shown(voter, place, aspect)
    return Shown(voter, len(questions), next(iter(ASPECTS)))


def take(ballot: Ballot, shown: Shown, side: str) -> Shown:
    """Write down a vote, and go on to what comes next."""
    questions = order(ballot.plan, shown.voter)
    if shown.place >= len(questions):
        return shown
    question = questions[shown.place]
    swapped = is_swapped(ballot.plan, shown.voter, question)
    ballot.add(Vote(shown.voter, question.number, shown.aspect, chosen(side, swapped), swapped))
    aspects = list(ASPECTS)
    if shown.aspect != aspects[-1]:
        return shown._replace(aspect=aspects[aspects.index(shown.aspect) + 1])
    return first_open(ballot, shown.voter, shown.place + 1)


def step_back(shown: Shown) -> Shown:
    """The aspect before, or the last one of the question before."""
    aspects = list(ASPECTS)
    at = aspects.index(shown.aspect)
    if at > 0:
        return shown._replace(aspect=aspects[at - 1])
    return shown if shown.place == 0 else Shown(shown.voter, shown.place - 1, aspects[-1])


def _render(folder: Path, ballot: Ballot, shown: Shown) -> list[Any]:
    plan = ballot.plan
    questions, said = order(plan, shown.voter), ballot.of(shown.voter)
    done = sum(len(said.get(q.number, {})) == len(ASPECTS) for q in questions)
    ends = shown.place >= len(questions)
    drawn = _thanks(done) if ends else _question(folder, plan, shown, questions[shown.place], done)
    buttons = [gr.Button(interactive=not ends) for _ in SIDES]
    return [tuple(shown), drawn, gr.Column(visible=False), gr.Column(visible=True), *buttons]


def _question(folder: Path, plan: Plan, shown: Shown, question: Question, done: int) -> str:
    sides = ("B", "A") if is_swapped(plan, shown.voter, question) else ("A", "B")
    sources = [as_data(plan.picture(folder, side, question)) for side in sides]
    figures = "".join(
        f'<figure><img src="{source}" alt="{place} picture"></figure>'
        for source, place in zip(sources, ("Left", "Right"), strict=True)
    )
    total, at = len(plan.questions), list(ASPECTS).index(shown.aspect) + 1
    return (
        f'<div class="c-bar" role="progressbar" aria-label="answered" aria-valuenow="{done}"'
        f' aria-valuemax="{total}"><i style="width:{100 * done / total:.1f}%"></i></div>'
        f'<p class="quiet figures">{done} of {total} pairs answered by {escape(shown.voter)}</p>'
        f'<p class="c-prompt">{escape(question.prompt)}</p><div class="c-pair">{figures}</div>'
        f'<p class="c-ask" aria-live="polite"><span>{at} of {len(ASPECTS)}</span> {ASPECTS[shown.aspect]}</p>'
    )


def _thanks(done: int) -> str:
    return f'<p class="c-ask">Thank you: all {done} pairs are answered. Every vote is written down.</p>'


def _welcome(plan: Plan) -> str:
    return (
        f"<p>You will see {len(plan.questions)} pairs of pictures, each made from the prompt above it, in an"
        " order and on sides drawn by lot. Say which fits the prompt better, then which looks better; if you"
        " see no difference, say so. You can stop at any time.</p>"
    )


def as_data(path: Path) -> str:
    """A picture's pixels alone as a data URI: without its name, its metadata and how it was compressed."""
    with Image.open(path) as opened:
        bare = Image.frombytes("RGB", opened.size, opened.convert("RGB").tobytes())
    data = io.BytesIO()
    bare.save(data, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
