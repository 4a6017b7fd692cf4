"""Fields that take pictures: they hand on files as they came, for `uploads` to judge, not for gradio.

Fields of gradio whose methods are replaced, not classes of our own: beside those gradio would write files.
"""

from typing import Any, NamedTuple

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import AcceptBlobs

from inference.app.words import Refused

WHITE = "rgba(255, 255, 255, 0.92)"


class Painting(NamedTuple):
    """A picture and the strokes over it, as paths of uploads."""

    picture: str
    strokes: str | None


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


def painter(label: str, **keywords: Any) -> gr.ImageEditor:
    """A picture to upload and paint over; its value is a Painting, None where nothing was uploaded."""
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
    field.preprocess = painting  # type: ignore[method-assign, assignment]
    field.accept_blobs = accept_nothing  # type: ignore[method-assign, assignment]
    return field


def painting(payload: Any) -> Painting | None:
    """The uploaded files of a picture and of the strokes over it, whatever else may lie there."""
    if payload is None or getattr(payload, "background", None) is None:
        return None
    return Painting(payload.background.path, payload.layers[0].path if payload.layers else None)


@server
def accept_nothing(data: AcceptBlobs) -> None:
    """In the place of gradio's way for fields that are listened to, which would keep what anybody sends."""
    raise Refused("pictures are uploaded")
