"""Pictures are converted, resized and drawn on sheets without being changed in between."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from modules.pictures import (
    LABEL_PX,
    MARGIN_PX,
    TEXT_PX,
    Row,
    contact_sheet,
    draw_sheet,
    middle_square,
    resized,
    to_image,
    wrap,
)

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
    font = ImageFont.load_default(TEXT_PX)
    lines = wrap("a large yellow triangle in the top left corner " * 4, font, 100)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert max(font.getlength(line) for line in lines) <= 100
    assert wrap("x" * 200, font, 100)[0].endswith("…")
    assert wrap("a red circle", font, 100) == ["a red circle"]


def test_pictures_of_other_sizes_are_enlarged_by_whole_factors() -> None:
    large, small = Image.new("RGB", (300, 200), "red"), Image.new("RGB", (60, 64), "blue")
    sheet = draw_sheet([Row([large]), Row([small], label="small")])
    left = MARGIN_PX + LABEL_PX
    assert sheet.getpixel((left + 299, MARGIN_PX + 199)) == (255, 0, 0)
    top = 2 * MARGIN_PX + 200
    assert sheet.getpixel((left + 179, top + 191)) == (0, 0, 255)
    assert sheet.getpixel((left + 180, top + 191)) == sheet.getpixel((left + 179, top + 192)) == (255,) * 3


def test_eight_bits_are_rounded_to_and_cut_off() -> None:
    values = [-1.0, 0.0, 0.5, 1.0, 2.0]
    pixels = torch.tensor(values).expand(3, 1, 5)
    assert np.asarray(to_image(pixels))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_resized_picture_is_the_same_picture() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    expected = ramp.reshape(1, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    assert torch.allclose(resized(ramp, 32, 32)[..., 2:-2], expected[..., 2:-2], atol=2e-3)
    assert resized(ramp, 64, 64) is ramp
    stripes = (torch.arange(64) % 32 < 16).float().expand(1, 3, 64, 64)
    assert resized(stripes, 100, 100).min() == 0 and resized(stripes, 100, 100).max() == 1


def test_the_middle_of_a_long_picture_takes_no_memory_for_its_ends() -> None:
    """Resized as a whole this one would take 100 GB."""
    long = torch.full((1, 1, 1, 1), 0.5).expand(1, 3, 1, 2**23)
    assert torch.equal(middle_square(long, 32), torch.full((1, 3, 32, 32), 0.5))
    ramp = torch.linspace(0, 1, 200).expand(1, 3, 4, 200)  # 50 times as long as high
    whole = resized(ramp, 8, 400)[..., 196:204]
    assert torch.allclose(middle_square(ramp, 8), whole, atol=1e-5)
    assert torch.allclose(middle_square(ramp.mT, 8), whole.mT, atol=1e-5)
