"""Fields that take pictures: they hand on files as they came, for `uploads` to judge, not for gradio.

Fields of gradio whose methods are replaced, not classes of our own: beside those gradio would write files.
"""

from typing import Any, NamedTuple

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import AcceptBlobs, EditorDataBlobs

from inference.app.words import Refused

MOST_KEPT = 32  # paintings whose wish has not come yet
KINDS = ("background", "layer", "composite")
FIRST = ("0", "null", "None")  # how the browser calls the only layer
WHITE = "rgba(255, 255, 255, 0.92)"


class Painting(NamedTuple):
    """A picture and the strokes over it, as files in memory."""

    picture: bytes
    strokes: bytes


def picture_field(label: str, **keywords: Any) -> gr.Image:
    """A picture to upload; its value is the path of the file as it came, which gradio has found an upload."""
    field = gr.Image(label=label, sources=["upload", "clipboard"], type="filepath", buttons=[], **keywords)
    field.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore
    return field


def pictures_field(label: str, **keywords: Any) -> gr.Gallery:
    """Several pictures to upload; its value is the list of their paths, videos left out."""
    field = gr.Gallery(label=label, file_types=["image"], interactive=True, buttons=[], **keywords)

    def paths(payload: Any) -> list[str]:
        items = [] if payload is None else payload.root
        return [item.image.path for item in items if hasattr(item, "image") and item.image.path]

    field.preprocess = paths  # type: ignore[method-assign, assignment]
    return field


def painter(label: str, limit_bytes: int, **keywords: Any) -> gr.ImageEditor:
    """A picture to upload and paint over; its value is a Painting, None where nothing was uploaded.

    The browser sends picture and strokes ahead of the wish. limit_bytes: of each of them.
    """
    field = gr.ImageEditor(
        label=label,
        sources=["upload", "clipboard"],
        layers=False,
        transforms=(),
        brush=gr.Brush(default_size="auto", colors=[WHITE], color_mode="fixed"),
        buttons=[],
        format="png",
        canvas_size=(1024, 1024),
        placeholder="Upload a picture, then paint over it",
        **keywords,
    )
    kept: dict[str, EditorDataBlobs] = {}

    def painting(payload: Any) -> Painting | None:
        sent = None if payload is None or payload.id is None else kept.get(payload.id)
        if sent is None or sent.background is None:
            return None
        return Painting(sent.background, next((layer for layer in sent.layers if layer), b""))

    @server
    def accept_blobs(data: AcceptBlobs) -> None:
        keep(kept, data, limit_bytes)

    field.preprocess = painting  # type: ignore[method-assign, assignment]
    field.accept_blobs = accept_blobs  # type: ignore[method-assign, assignment]
    return field


def keep(kept: dict[str, EditorDataBlobs], data: AcceptBlobs, limit_bytes: int) -> None:
    """Keep what a browser sends of a painting, within limits: anybody may send anything."""
    kind, index, key = data.data["type"], data.data["index"], str(data.data["id"])
    file = data.files[0][1]
    if kind not in KINDS or str(index) not in FIRST or len(file) > limit_bytes:
        raise Refused("a picture and one layer of strokes are taken, within the limit of uploads")
    painting = kept.pop(key, EditorDataBlobs(background=None, layers=[], composite=None))
    if kind == "background":
        painting.background = file
    elif kind == "layer":
        painting.layers = [file]
    kept[key] = painting
    while len(kept) > MOST_KEPT:
        kept.pop(next(iter(kept)))
