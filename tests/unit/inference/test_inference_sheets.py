"""Contact sheets."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from inference.sheets import TEXT_SIZE_PX, contact_sheet, wrap

COLOURS = ["red", "lime", "blue", "black", "magenta"]


def squares(side: int) -> list[Image.Image]:
    return [Image.new("RGB", (side, side), colour) for colour in COLOURS]


def test_every_picture_is_on_the_sheet_with_dark_text_below() -> None:
    sheet = np.asarray(contact_sheet(squares(64), ["a red circle"] * 5, columns=3))
    for i, image in enumerate(squares(64)):
        left, top = 8 + i % 3 * 136, 8 + i // 3 * (sheet.shape[0] - 8) // 2
        block = sheet[top : top + 128, left : left + 128]
        assert (block == np.asarray(image)[0, 0]).all()
        assert sheet[top + 129 : top + 145, left : left + 128].min() < 100  # letters


def test_about_square_without_a_number_of_columns() -> None:
    sheet = contact_sheet(squares(256), ["x"] * 5)
    assert sheet.width == 3 * 264 + 8
    assert sheet.height < 3 * 264


def test_numbers_must_agree() -> None:
    with pytest.raises(ValueError, match="5 pictures with 1 captions"):
        contact_sheet(squares(8), ["x"])
    with pytest.raises(ValueError, match="0 pictures"):
        contact_sheet([], [])


def test_long_prompts_are_broken_and_cut_to_the_width() -> None:
    font = ImageFont.load_default(TEXT_SIZE_PX)
    lines = wrap("a large yellow triangle in the top left corner " * 4, font, 100).split("\n")
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert max(font.getlength(line) for line in lines) <= 100
    assert wrap("x" * 200, font, 100).endswith("…")
    assert wrap("a red circle", font, 100) == "a red circle"
