"""Sample sheets: rows of pictures with a label each, and the caption under every column."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SMALLEST_PX = 128  # smaller pictures are enlarged, for their captions would not fit under them
MARGIN_PX = 8
TEXT_PX = 13
LABEL_PX = 110
CAPTION_LINES = 3
INK, PAPER = (20, 20, 20), (255, 255, 255)


def sheet(rows: Mapping[str, Tensor], captions: Sequence[str]) -> Image.Image:
    """Draw a sheet. rows: label -> images [B, 3, H, W] in [0, 1], all with B pictures; captions: B texts.

    Rows may differ in size; all are shown in the size of the largest.
    """
    height, width = _cell(rows)
    font = ImageFont.load_default(TEXT_PX)
    left = LABEL_PX + MARGIN_PX
    size = (
        left + len(captions) * (width + MARGIN_PX),
        len(rows) * (height + MARGIN_PX) + MARGIN_PX + CAPTION_LINES * (TEXT_PX + 3) + MARGIN_PX,
    )
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    write = partial(_write, draw, font)
    for i, (label, images) in enumerate(rows.items()):
        top = MARGIN_PX + i * (height + MARGIN_PX)
        write(label, (MARGIN_PX, top + height // 2 - TEXT_PX), LABEL_PX - MARGIN_PX)
        for j, image in enumerate(images):
            page.paste(_picture(image, width, height), (left + j * (width + MARGIN_PX), top))
    for j, caption in enumerate(captions):
        place = (left + j * (width + MARGIN_PX), MARGIN_PX + len(rows) * (height + MARGIN_PX))
        write(caption, place, width)
    return page


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """Break text into at most CAPTION_LINES lines of `width_px`; what is left over ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], lines[CAPTION_LINES - 1] + " …"]
    return lines


def _cell(rows: Mapping[str, Tensor]) -> tuple[int, int]:
    height = max(images.shape[2] for images in rows.values())
    width = max(images.shape[3] for images in rows.values())
    scale = max(1, -(-SMALLEST_PX // width))
    return height * scale, width * scale


def _picture(image: Tensor, width: int, height: int) -> Image.Image:
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.NEAREST)


def _write(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    text: str,
    place: tuple[int, int],
    width_px: int,
) -> None:
    for i, line in enumerate(wrap(text, font, width_px)):
        draw.text((place[0], place[1] + i * (TEXT_PX + 3)), line, fill=INK, font=font)
