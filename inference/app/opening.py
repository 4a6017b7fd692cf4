"""From settings to a page that is served."""

import sys
from pathlib import Path

import gradio as gr

from inference.app.offers import Offers, find_offers
from inference.app.page import Page
from inference.app.settings import AppSettings, Bounds
from inference.app.shelf import Shelf
from inference.app.studio import Studio
from inference.app.uploads import Uploads
from inference.pipeline import Cascade
from inference.tasks import TASKS
from modules import web

CSS_FILE = Path(__file__).with_name("app.css")


def open_page(settings: AppSettings) -> int:
    """Find networks and adapters, then serve until interrupted; returns the exit status.

    The networks are read while the page answers already. Raises ValueError, FileNotFoundError for what is not
    there, before that.
    """
    if settings.output is not None and Path(settings.output).is_file():
        raise ValueError(f"output: expected a folder, found the file {settings.output}")
    cascade = settings.cascade()
    cascade.networks.check(TASKS["text_to_image"].networks)
    offers = find_offers(settings)
    print(cascade.described(), file=sys.stderr)
    studios: list[Studio] = []

    def build() -> gr.Blocks:
        studios.append(make_studio(settings, cascade))
        return make_page(settings, studios[0], offers)

    try:
        return web.serve(
            build,
            host=settings.host,
            port=settings.port,
            root_path=settings.root_path,
            upload_limit_mb=settings.upload_limit_mb,
            css=CSS_FILE.read_text(encoding="utf-8"),
            open_browser=settings.open_browser,
        )
    finally:
        for studio in studios:
            studio.close()


def make_studio(settings: AppSettings, cascade: Cascade) -> Studio:
    """A studio at work, whose pictures lie where the page may show them."""
    output = None if settings.output is None else Path(settings.output)
    studio = Studio(cascade, Shelf(web.page_folder() / "pictures", output), settings.queue_length)
    studio.start()
    return studio


def make_page(settings: AppSettings, studio: Studio, offers: Offers) -> gr.Blocks:
    """The page of a studio."""
    folder = web.page_folder() if settings.output is None else Path(settings.output)
    bounds = Bounds.of(settings, studio.own_side_px)
    return Page(studio, offers, bounds, Uploads(folder / "sources")).build()
