"""`python -m inference.app run=outputs/demo`: the web page."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from inference.app.settings import AppSettings, Bounds
from modules.key_values import settings_from
from modules.schema import one_line

MISTAKE = 2  # exit status
USAGE = """\
python -m inference.app run=outputs/demo [KEY=VALUE ...]
python -m inference.app run=outputs/demo port=8000 most_side_px=128 output=null
python -m inference.app run=outputs/demo host=0.0.0.0        # for others on the network too: see docs/web.md

The settings, explained in docs/web.md, and their defaults:
"""
CSS_FILE = Path(__file__).with_name("app.css")


def main(arguments: Sequence[str]) -> int:
    """Serve the page until it is ended; returns the exit status. A mistake is one line and status 2."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE + "\n".join(f"  {name}={shown(value)}" for name, value in asdict(AppSettings()).items()))
        return 0
    try:
        return run(settings_from(AppSettings, arguments, positional=["run"]))
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return MISTAKE


def shown(value: object) -> str:
    """A default as it would be typed."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(each)}" for key, each in value.items()) + "}"
    return {None: "null", True: "true", False: "false"}.get(value, str(value))  # type: ignore[call-overload]


def run(settings: AppSettings) -> int:
    """Find the networks and adapters, then serve. Raises ValueError, FileNotFoundError before that."""
    from inference.app.offers import find_offers  # slow to load, and not needed for a mistake in the settings
    from inference.pipeline import Cascade
    from inference.tasks import TASKS

    if settings.output is not None and Path(settings.output).is_file():
        raise ValueError(f"output: expected a folder, found the file {settings.output}")
    cascade = Cascade.load(
        settings.run,
        device=settings.device,
        dtype=settings.dtype,
        ema=settings.ema,
        offload=settings.offload,
        quantize=settings.quantize,
        compile=settings.compile,
        tile_px=settings.tile_px,
        **asdict(settings.weights),
    )
    cascade.networks.check(TASKS["text_to_image"].networks)
    return open_page(settings, cascade, find_offers(settings))


def open_page(settings: AppSettings, cascade, offers) -> int:  # type: ignore[no-untyped-def]
    """Serve the page of a cascade with these adapters."""
    from modules import web  # isort: skip  # sets what gradio reads when it is imported
    from inference.app.page import Page
    from inference.app.shelf import Shelf
    from inference.app.studio import Studio
    from inference.app.uploads import Uploads

    studios: list[Studio] = []

    def build():  # type: ignore[no-untyped-def]
        folder = web.page_folder()
        output = None if settings.output is None else Path(settings.output)
        uploads = Uploads((output or folder) / "sources")
        studio = Studio(cascade, Shelf(folder / "pictures", output), settings.queue_length)
        studio.start()
        studios.append(studio)
        bounds = Bounds.of(settings, studio.own_side_px)
        limit = int(settings.upload_limit_mb * 2**20)
        return Page(studio, offers, bounds, uploads, limit).build()

    print(f"{cascade.described()}", file=sys.stderr)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
