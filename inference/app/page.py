"""The page: the form on one side, what is drawn on the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from inference.app import panel
from inference.app.api import Api, add_api
from inference.app.events import Done, Drawing
from inference.app.form import Form
from inference.app.look_at import control_seen
from inference.app.offers import Offers
from inference.app.remembered import facts_in, remembered
from inference.app.settings import Bounds
from inference.app.studio import Studio
from inference.app.uploads import Uploads
from inference.app.wishes import requests_of
from inference.app.words import Refused, Stopped, in_words
from modules import web

MOST_SHOWN = 200  # pictures of one visit
HIDDEN: Any = {"api_visibility": "private", "show_progress": "hidden"}
TO_PANEL = """() => {  // where it lies below the form
    if (matchMedia("(max-width: 48rem)").matches) document.querySelector("#view").scrollIntoView();
}"""
Updates = dict[Any, Any]


class Page:
    """The page of a studio."""

    def __init__(self, studio: Studio, offers: Offers, bounds: Bounds, uploads: Uploads) -> None:
        self.studio, self.offers, self.bounds, self.uploads = studio, offers, bounds, uploads

    def build(self) -> gr.Blocks:
        """Lay the page out and connect it."""
        with web.page("Kaskade", fill_width=True) as blocks:
            self.drawn = gr.State([])  # paths of this visit's pictures, newest first
            self.shown = gr.State(None)
            gr.HTML(self._head(), elem_id="head")
            with gr.Row(elem_id="studio", equal_height=False):
                with gr.Column(scale=5, min_width=320, elem_id="form"):
                    self._form()
                with gr.Column(scale=6, min_width=320, elem_id="view"):
                    self._view()
            self._connect()
            add_api(Api(self.studio, self.offers, self.bounds))
            blocks.unload(self.leave)
        return blocks

    def _head(self) -> str:
        networks = self.studio.cascade.networks
        place = Path(networks.run).resolve().name if networks.run else "single weights"
        return f'<h1>Kaskade</h1><p class="quiet">{place} · {networks.device}, {networks.dtype_name}</p>'

    def _form(self) -> None:
        sampling = {stage: self.studio.sampling(stage) for stage in ("stage_c", "stage_b")}
        self.form = Form(self.offers, self.bounds, sampling, self.studio.can_vary)
        with gr.Row(elem_id="go"):
            self.draw_button = gr.Button("Draw", variant="primary", scale=3, min_width=120, elem_id="draw")
            self.cancel_button = gr.Button(
                "Cancel", variant="stop", scale=1, min_width=96, visible=False, elem_id="cancel"
            )
        self.form.folds()
        with gr.Accordion("Settings from a picture", open=False, elem_id="fold-recall"):
            self.recall = gr.File(
                label="A PNG that Kaskade has made", file_types=[".png"], height=140, elem_id="recall"
            )

    def _view(self) -> None:
        self.panel = gr.HTML(panel.IDLE, elem_id="panel")
        with gr.Row(visible=False, elem_id="actions") as self.actions:
            self.again = gr.Button("Use these settings again", size="md", min_width=120, elem_id="again")
            self.download = gr.DownloadButton("Download", size="md", min_width=120, elem_id="download")
        self.note = gr.Markdown(visible=False, elem_classes="quiet", elem_id="note")
        with gr.Accordion("How it was made", open=False, visible=False, elem_id="how") as self.how:
            self.table = gr.HTML()
        self.gallery = gr.Gallery(
            label="Drawn in this visit",
            columns=6,
            allow_preview=False,
            object_fit="cover",
            height="auto",
            visible=False,
            interactive=False,
            buttons=[],
            fit_columns=False,
            show_label=False,
            container=False,
            elem_id="gallery",
        )

    def _connect(self) -> None:
        fields = {*self.form.fields.values()}
        seen = [self.panel, self.actions, self.download, self.note, self.how, self.table, self.shown]
        drawing = {*seen, self.gallery, self.drawn, self.draw_button, self.cancel_button}
        gr.on(
            [self.draw_button.click, self.form.prompt.submit],
            self.draw,
            fields | {self.drawn},
            drawing,
            concurrency_limit=None,
            **HIDDEN,
        )
        gr.on([self.draw_button.click, self.form.prompt.submit], None, js=TO_PANEL)
        self.cancel_button.click(self.cancel, None, None, queue=False, **HIDDEN)
        self.gallery.select(self.choose, self.drawn, seen, queue=False, **HIDDEN)
        filled = [*fields, self.form.tabs, self.note]
        self.again.click(self.use_again, self.shown, filled, queue=False, **HIDDEN)
        self.recall.upload(self.use_upload, self.recall, [*filled, self.recall], queue=False, **HIDDEN)
        if self.offers.controlnets:
            self.form.look.click(
                self.look, fields, [self.form.seen, self.note], concurrency_limit=None, **HIDDEN
            )

    def draw(self, data: Updates, request: gr.Request) -> Iterator[Updates]:
        """Fulfil what the form asks for, telling how it goes."""
        yield {
            self.draw_button: gr.Button(interactive=False),
            self.cancel_button: gr.Button(visible=True),
            self.note: gr.Markdown(visible=False),
        }
        preview = None
        try:
            wish = self.form.wish(data, self.uploads)
            for event in self.studio.draw(
                requests_of(wish, self.offers, self.bounds), request.session_hash or ""
            ):
                if isinstance(event, Done):
                    drawn = [*map(str, event.paths), *data[self.drawn]][:MOST_SHOWN]
                    yield self._finished(drawn)
                else:
                    preview = (event.preview if isinstance(event, Drawing) else None) or preview
                    yield {self.panel: panel.progress(event, preview, self.studio.has_previewer)}
        except Stopped:
            yield {self.panel: panel.stopped()} | self._idle()
        except Exception as error:
            yield {self.panel: panel.problem(in_words(error))} | self._idle()

    def _idle(self) -> Updates:
        return {
            self.draw_button: gr.Button(interactive=True),
            self.cancel_button: gr.Button(visible=False),
        }

    def _finished(self, drawn: list[str]) -> Updates:
        return {
            self.drawn: drawn,
            self.gallery: gr.Gallery(drawn, visible=True),
            **self._shown(drawn[0]),
            **self._idle(),
        }

    def _shown(self, path: str) -> Updates:
        """One of the visit's pictures, large, with its settings."""
        facts = facts_in(path)
        return {
            self.panel: panel.finished(Path(path), facts),
            self.actions: gr.Row(visible=True),
            self.download: gr.DownloadButton(value=path),
            self.note: gr.Markdown(visible=False),
            self.how: gr.Accordion(visible=True),
            self.table: panel.settings_table(facts),
            self.shown: path,
        }

    def choose(self, drawn: list[str], event: gr.SelectData) -> Updates:
        """Show the picture of the gallery that was chosen."""
        if not isinstance(event.index, int) or not 0 <= event.index < len(drawn):
            return {self.note: gr.Markdown("That picture is not of this visit.", visible=True)}
        return self._shown(drawn[event.index])

    def use_again(self, path: str | None) -> Updates:
        """Fill the form with the settings of the picture that is shown."""
        return self._fill(path) if path else {self.note: gr.Markdown("Choose a picture first.", visible=True)}

    def use_upload(self, path: str | None) -> Updates:
        """Fill the form with the settings that an uploaded picture carries."""
        return {**self._fill(path), self.recall: None} if path else {self.recall: None}

    def _fill(self, path: str) -> Updates:
        try:
            found = remembered(facts_in(path), self.offers, self.bounds)
        except Refused as refused:
            return {self.note: gr.Markdown(sentence(refused), visible=True)}
        notes = "; ".join(["the form has these settings", *found.notes])
        return {**self.form.fill(found.fields), self.note: gr.Markdown(sentence(notes), visible=True)}

    def look(self, data: Updates, request: gr.Request) -> Updates:
        """Show what the ControlNet is to see."""
        try:
            wish = self.form.wish(data, self.uploads)
            first = requests_of(wish, self.offers, self.bounds)[0]
            if not first.controls:
                raise Refused("choose a ControlNet first")
            seen = self.studio.ask(
                lambda: control_seen(self.studio.cascade, first), request.session_hash or ""
            )
        except (Refused, Stopped) as refused:
            return {self.note: gr.Markdown(sentence(refused), visible=True)}
        return {self.form.seen: seen, self.note: gr.Markdown(visible=False)}

    def cancel(self, request: gr.Request) -> None:
        """Stop what this visitor waits for."""
        self.studio.cancel(request.session_hash or "")

    def leave(self, request: gr.Request) -> None:
        """Nobody looks any more."""
        self.studio.cancel(request.session_hash or "")


def sentence(words: object) -> str:
    """A message with a capital letter, of which nothing is markup."""
    text = str(words).translate({ord(each): f"\\{each}" for each in "\\`*_{}[]<>#!|$~"})
    return text[:1].upper() + text[1:] + "."
