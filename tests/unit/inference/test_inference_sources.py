"""Pictures that are handed in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.sizes import Size
from inference.sources import checksum, fit, open_source, source_size


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_source(str(tmp_path / "clear.png")).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "x.tiff")
    assert open_source(str(tmp_path / "x.tiff")).mode == "RGB"


def test_grey_of_16_bits_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    deep = open_source(str(tmp_path / "deep.png"))
    assert [deep.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4))
    image.getexif()[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=image.getexif())
    assert source_size(open_source(str(tmp_path / "turned.jpg"))) == Size(height=8, width=4)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("text")
    with pytest.raises(ValueError, match="x.png cannot be read as a picture"):
        open_source(str(tmp_path / "x.png"))
    with pytest.raises(FileNotFoundError, match="image: .*y.png does not exist"):
        open_source(str(tmp_path / "y.png"))


def test_fitting_covers_the_size_and_cuts_the_middle_out() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    fitted = fit(image, Size(40, 40))
    assert fitted.shape == (3, 40, 40)
    assert fitted[2, :, 4:-4].min() > 0.99


def test_fitting_a_picture_of_the_size_changes_nothing() -> None:
    image = Image.effect_noise((12, 9), 80).convert("RGB")
    pixels = fit(image, Size(9, 12)) * 255
    assert torch.equal(pixels[0], torch.from_numpy(np.array(image)).float()[:, :, 0])


def test_checksums_tell_files_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    assert checksum(str(tmp_path / "a")) != checksum(str(tmp_path / "b"))
