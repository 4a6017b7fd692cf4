"""Contact sheets: many pictures on one, the prompt under each."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN_PX = 8
TEXT_SIZE_PX = 12
MIN_CELL_PX = 128  # small pictures are enlarged, so that their prompts can be read
MAX_TEXT_LINES = 3


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
    columns = columns or math.ceil(math.sqrt(len(images)))
    font = ImageFont.load_default(TEXT_SIZE_PX)
    scale = max(1, math.ceil(MIN_CELL_PX / max(image.width for image in images)))  # whole: pixels stay square
    width = scale * max(image.width for image in images)
    height = scale * max(image.height for image in images)
    texts = [wrap(caption, font, width) for caption in captions]
    text_height = (TEXT_SIZE_PX + 4) * max(text.count("\n") + 1 for text in texts)
    step_x, step_y = width + MARGIN_PX, height + text_height + MARGIN_PX
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * step_x + MARGIN_PX, rows * step_y + MARGIN_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        corner = (MARGIN_PX + i % columns * step_x, MARGIN_PX + i // columns * step_y)
        shown = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        sheet.paste(shown, corner)
        draw.multiline_text((corner[0], corner[1] + height), text, fill="black", font=font, spacing=2)
    return sheet


def wrap(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width_px: int) -> str:
    """Break a caption into lines of at most width_px; what does not fit three lines ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    shown = lines[:MAX_TEXT_LINES]
    if len(lines) > MAX_TEXT_LINES:
        shown[-1] += " …"
    return "\n".join(shorten(line, font, width_px) for line in shown)


def shorten(line: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width_px: int) -> str:
    """Cut a line that is wider than width_px and end it in an ellipsis."""
    if font.getlength(line) <= width_px:
        return line
    line = line.rstrip(" …")
    while line and font.getlength(line + "…") > width_px:
        line = line[:-1]
    return line + "…"
