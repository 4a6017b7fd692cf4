"""A sheet shows every row and column, labelled, at one size."""

import torch

from modules.pictures import LABEL_PX, MARGIN_PX
from train.reports.sheets import sheet


def test_pictures_stand_where_their_row_and_column_are() -> None:
    red, blue = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)
    red[:, 0] = 1
    blue[1, 2] = 1
    page = sheet({"original": red, "half size": blue}, ["one", "two"])
    cell = 128  # 8 pixels enlarged 16 times
    left, step = LABEL_PX + MARGIN_PX, cell + MARGIN_PX
    assert page.getpixel((left + 5, MARGIN_PX + 5)) == (255, 0, 0)
    assert page.getpixel((left + 5, MARGIN_PX + step + 5)) == (0, 0, 0)
    assert page.getpixel((left + step + 120, MARGIN_PX + step + 120)) == (0, 0, 255)
    assert page.getpixel((left - 2, MARGIN_PX + 5)) == (255, 255, 255)


def test_labels_and_captions_leave_ink() -> None:
    white = torch.ones(1, 3, 128, 128)
    silent, spoken = sheet({"": white}, [""]), sheet({"label": white}, ["a caption"])
    assert silent.getextrema() == ((255, 255),) * 3
    left, below = spoken.crop((0, 0, LABEL_PX, 140)), spoken.crop((LABEL_PX, 140, *spoken.size))
    assert left.getextrema()[0][0] < 100 and below.getextrema()[0][0] < 100


def test_values_out_of_range_are_clipped() -> None:
    page = sheet({"x": torch.full((1, 3, 128, 128), 1.7)}, [""])
    assert page.getpixel((LABEL_PX + MARGIN_PX + 9, MARGIN_PX + 9)) == (255, 255, 255)
