"""Pictures as tensors and as Pillow images, and sheets that show many of them with captions."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from modules.whole_files import whole_file

MOST_PROPORTION = 16  # of a longer side: what lies beyond is not resized only to be cut off
MARGIN_PX = 8
TEXT_PX, LINE_PX = 12, 16
LABEL_PX = 110
MAX_LINES = 3
MIN_CELL_PX = 128  # small pictures are enlarged, so that the text under them can be read
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Row(NamedTuple):
    """Pictures side by side. captions: a text under each, or none at all. label: a text to their left."""

    pictures: Sequence[Image.Image]
    captions: Sequence[str] = ()
    label: str = ""


def save_png(image: Image.Image, path: Path, info: PngInfo | None = None) -> None:
    """Write a picture under a name that no other process uses, never half."""
    with whole_file(path, alone=True) as file:
        image.save(file, format="PNG", pnginfo=info)


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Smoothly resized pictures [B, 3, height, width] in [0, 1]; of that size already: the same tensor."""
    if tuple(images.shape[2:]) == (height, width):
        return images
    return F.interpolate(images.float(), (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def middle_square(images: Tensor, side: int) -> Tensor:
    """The middle [B, 3, side, side] of pictures [B, 3, H, W] whose shorter side is resized to `side`."""
    most = MOST_PROPORTION * min(images.shape[-2:])
    tops = [max(0, size - most) // 2 for size in images.shape[-2:]]
    images = images[..., tops[0] : tops[0] + most, tops[1] : tops[1] + most]
    height, width = images.shape[-2:]
    scaled = [round(size * side / min(height, width)) for size in (height, width)]
    images = F.interpolate(images.float(), scaled, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = ((size - side) // 2 for size in scaled)
    return images[..., top : top + side, left : left + side]


def to_image(pixels: Tensor) -> Image.Image:
    """Round a picture [3, H, W], 0 to 1, to eight bits; values outside are cut off."""
    levels = (pixels.detach().float().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def false_colours(latents: Tensor) -> Tensor:
    """Three of the latents' channels as red, green and blue, spread over [0, 1]: [B, 3, h, w]."""
    channels = latents[:, :3].float()
    low, high = (channels.amin(dim=(2, 3), keepdim=True), channels.amax(dim=(2, 3), keepdim=True))
    return (channels - low) / (high - low).clamp(min=1e-6)


def control_pictures(control: Tensor) -> Tensor:
    """What a ControlNet sees, [B, c, h, w] in [0, 1], as pictures [B, 3, h, w]: its first one or three."""
    return control[:, :3] if control.shape[1] >= 3 else control[:, :1].expand(-1, 3, -1, -1)


def contact_sheet(
    images: Sequence[Image.Image], captions: Sequence[str], columns: int | None = None
) -> Image.Image:
    """Lay pictures out in rows with captions below them.

    columns: None makes the sheet about square. Raises ValueError without pictures, or when numbers differ.
    """
    if not images or len(images) != len(captions):
        raise ValueError(
            f"a contact sheet of {len(images)} pictures with {len(captions)} captions cannot be made"
        )
    step = columns or math.ceil(math.sqrt(len(images)))
    starts = range(0, len(images), step)
    return draw_sheet([Row(images[i : i + step], captions[i : i + step]) for i in starts])


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Draw rows below one another, in cells of the size of the largest picture; at least one picture."""
    font = ImageFont.load_default(TEXT_PX)
    width, height = _cell([picture for row in rows for picture in row.pictures])
    left = MARGIN_PX + (LABEL_PX if any(row.label for row in rows) else 0)
    captions = [[wrap(caption, font, width) for caption in row.captions] for row in rows]
    bottoms = [LINE_PX * max(map(len, texts), default=0) + MARGIN_PX for texts in captions]
    columns = max(len(row.pictures) for row in rows)
    size = left + columns * (width + MARGIN_PX), MARGIN_PX + len(rows) * height + sum(bottoms)
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    top = MARGIN_PX
    for row, texts, bottom in zip(rows, captions, bottoms, strict=True):
        label = wrap(row.label, font, LABEL_PX - MARGIN_PX)
        _write(draw, font, label, (MARGIN_PX, top + height // 2 - TEXT_PX))
        for i, picture in enumerate(row.pictures):
            page.paste(_enlarged(picture, width, height), (left + i * (width + MARGIN_PX), top))
        for i, text in enumerate(texts):
            _write(draw, font, text, (left + i * (width + MARGIN_PX), top + height))
        top += height + bottom
    return page


def wrap(text: str, font: Font, width_px: int) -> list[str]:
    """Break a text into lines of at most width_px; what does not fit three of them ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    shown = lines[:MAX_LINES]
    if len(lines) > MAX_LINES:
        shown[-1] += " …"
    return [_shortened(line, font, width_px) for line in shown]


def _shortened(line: str, font: Font, width_px: int) -> str:
    if font.getlength(line) <= width_px:
        return line
    line = line.rstrip(" …")
    while line and font.getlength(line + "…") > width_px:
        line = line[:-1]
    return line + "…"


def _cell(pictures: Sequence[Image.Image]) -> tuple[int, int]:
    """Width and height of a cell."""
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures)
    scale = max(1, math.ceil(MIN_CELL_PX / width))
    return scale * width, scale * height


def _enlarged(picture: Image.Image, width: int, height: int) -> Image.Image:
    """As large as fits, by a whole factor: pixels stay square and equal."""
    scale = min(width // picture.width, height // picture.height)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _write(draw: ImageDraw.ImageDraw, font: Font, lines: Sequence[str], place: tuple[int, int]) -> None:
    for i, line in enumerate(lines):
        draw.text((place[0], place[1] + i * LINE_PX), line, fill="black", font=font)
