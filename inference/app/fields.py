"""Fields that take pictures: they hand on files as they came, for `uploads` to judge, not for gradio."""

from typing import Any, NamedTuple

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import AcceptBlobs, EditorDataBlobs

from inference.app.words import Refused

MOST_KEPT = 64  # paintings whose wish has not come yet
KINDS = ("background", "layer", "composite")
BRUSH = gr.Brush(default_size="auto", colors=["rgba(255, 255, 255, 0.92)"], color_mode="fixed")


class Painting(NamedTuple):
    """A picture and the strokes over it, as files in memory."""

    picture: bytes
    strokes: bytes


class PictureField(gr.Image):
    """A picture to upload; its value is the path of the file as it came."""

    def __init__(self, label: str, **keywords: Any) -> None:
        super().__init__(label=label, sources=["upload", "clipboard"], type="filepath", buttons=[], **keywords)

    def preprocess(self, payload: Any) -> str | None:  # type: ignore[override]
        """The path, which gradio has found to be that of an upload."""
        return None if payload is None else payload.path

    def get_block_name(self) -> str:
        """The field in the browser that shows it."""
        return "image"


class PicturesField(gr.Gallery):
    """Several pictures to upload; its value is the list of their paths."""

    def preprocess(self, payload: Any) -> list[str]:  # type: ignore[override]
        """The paths of the pictures; videos are none."""
        items = [] if payload is None else payload.root
        return [item.image.path for item in items if hasattr(item, "image") and item.image.path]

    def get_block_name(self) -> str:
        """The field in the browser that shows it."""
        return "gallery"


class Painter(gr.ImageEditor):
    """A picture to upload and paint over; its value is a Painting, None where nothing was uploaded.

    The browser sends picture and strokes ahead of the wish. limit_bytes: of each of them.
    """

    def __init__(self, label: str, limit_bytes: int, **keywords: Any) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(
            label=label, sources=["upload", "clipboard"], layers=False, transforms=(), brush=BRUSH,
            buttons=[], format="png", canvas_size=(1024, 1024), **keywords,
        )

    def preprocess(self, payload: Any) -> Painting | None:  # type: ignore[override]
        """What was sent ahead of the wish."""
        sent = None if payload is None or payload.id is None else self.blob_storage.pop(payload.id, None)
        if sent is None or sent.background is None:
            return None
        return Painting(sent.background, next((layer for layer in sent.layers if layer), b""))

    @server
    def accept_blobs(self, data: AcceptBlobs) -> None:
        """Keep what the browser sends, within limits: anybody may send anything."""
        kind, index, key = data.data["type"], data.data["index"], str(data.data["id"])
        file = data.files[0][1]
        if kind not in KINDS or str(index) not in ("0", "null", "None") or len(file) > self.limit_bytes:
            raise Refused("a picture and one layer of strokes are taken, within the limit of uploads")
        kept = self.blob_storage.pop(key, EditorDataBlobs(background=None, layers=[], composite=None))
        if kind == "background":
            kept.background = file
        elif kind == "layer":
            kept.layers = [file]
        self.blob_storage[key] = kept
        while len(self.blob_storage) > MOST_KEPT:
            self.blob_storage.pop(next(iter(self.blob_storage)))

    def get_block_name(self) -> str:
        """The field in the browser that shows it."""
        return "imageeditor"
