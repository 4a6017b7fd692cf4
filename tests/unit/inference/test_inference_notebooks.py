"""Pictures and measures as the notebooks show them."""

import base64
import io
import re
from typing import Any

import IPython.display
import pytest
import torch
from PIL import Image

from inference import Picture, notebooks
from inference.notebooks import Row, measured, show, show_rows

MIB = 2**20


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All that is displayed."""
    seen: list[Any] = []
    monkeypatch.setattr(notebooks, "display", seen.append)
    return seen


def opened(display: IPython.display.Image) -> Image.Image:
    data, _ = display._repr_mimebundle_()
    return Image.open(io.BytesIO(base64.b64decode(next(iter(data.values())))))


def test_all_kinds_of_pictures_are_shown_at_one_height(shown: list[Any]) -> None:
    red = Image.new("RGB", (64, 64), "red")
    show([red, Picture(red, {}), torch.ones(3, 32, 48), torch.ones(1, 500, 500)], list("abcd"), height_px=150)
    sheet = opened(shown[0])
    assert sheet.format == "JPEG"
    assert sheet.width == 8 + 4 * (225 + 8)  # the widest is 32 x 48
    assert sheet.getpixel((100, 80))[0] > 240 and sheet.getpixel((100, 80))[1] < 20
    assert shown[0].alt == "a; b; c; d"


def test_pictures_are_broken_into_rows(shown: list[Any]) -> None:
    show([Image.new("RGB", (64, 64))] * 5, columns=2, height_px=128)
    assert opened(shown[0]).size == (8 + 2 * (128 + 8), 8 + 3 * (128 + 8))


def test_pixels_stay_squares_where_asked(shown: list[Any]) -> None:
    small = torch.rand(3, 16, 16).mul(255).round() / 255
    show_rows([Row([small], label="pixels")], height_px=160, smooth=False)
    sheet = opened(shown[0])
    assert sheet.format == "PNG"
    corner = [round(value) for value in (small[:, 0, 0] * 255).tolist()]
    left = sheet.width - 8 - 160
    assert {sheet.getpixel((left + x, 8 + y)) for x in (0, 9) for y in (0, 9)} == {tuple(corner)}


def test_time_and_the_peak_of_memory_are_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with measured("nothing"):
        pass
    with measured("much"):
        torch.zeros(300 * MIB // 4).add_(1)
    quiet, loud = (
        int(re.fullmatch(r"\w+: \d+\.\d s, (?:GPU )?memory at most ([\d,]+) MiB", line)[1].replace(",", ""))
        for line in capsys.readouterr().out.splitlines()
    )
    assert loud > quiet + 250


def test_what_failed_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), measured("a mistake"):
        1 / 0  # noqa: B018
    assert capsys.readouterr().out == ""
