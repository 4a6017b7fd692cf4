"""From a picture's bytes to the pixels of its bucket."""

import io
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dataset_tools.decode import CROPS, TWO_TAPS, decode, fit
from dataset_tools.kinds import Kind, UnusableError


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    """Red grows from left to right, green from top to bottom."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, Image.new("L", (width, height), 128)))


@pytest.mark.parametrize("size", [(64, 64), (90, 40), (33, 77), (500, 300)])
@pytest.mark.parametrize("crop", CROPS)
def test_every_picture_fills_its_bucket(size, crop):
    width, height = size
    data = encoded(gradient(width, height), "PNG")
    pixels = decode(data, (height, width), (24, 40), crop, 0.5, Random(3))
    assert pixels.shape == (3, 24, 40) and pixels.dtype == torch.uint8


def test_shrinking_a_jpeg_by_its_own_means_changes_little():
    image = gradient(800, 600)
    from_jpeg = decode(encoded(image, "JPEG", quality=95), (600, 800), (72, 96), "center", 0, Random(0))
    from_png = decode(encoded(image, "PNG"), (600, 800), (72, 96), "center", 0, Random(0))
    assert (from_jpeg.int() - from_png.int()).abs().max() <= 6


def test_the_centre_is_kept():
    pixels = torch.zeros(3, 8, 16, dtype=torch.uint8)
    pixels[:, :, 4:12] = 200
    assert (fit(pixels, (8, 8), "center", Random(0)) == 200).all()


def test_random_crops_reach_both_ends_and_follow_the_generator():
    pixels = torch.arange(16, dtype=torch.uint8).expand(3, 8, 16)
    rng = Random(0)
    firsts = [int(fit(pixels, (8, 8), "random", rng)[0, 0, 0]) for _ in range(200)]
    assert set(firsts) == set(range(9))
    rng = Random(0)
    assert [int(fit(pixels, (8, 8), "random", rng)[0, 0, 0]) for _ in range(200)] == firsts


@pytest.mark.parametrize("start", [0, 5, 24])
@pytest.mark.parametrize("lying", [True, False])
def test_smart_crops_keep_the_detail(start, lying):
    pixels = torch.full((3, 8, 32), 90, dtype=torch.uint8)
    pixels[:, :, start : start + 8] = torch.tensor([0, 255] * 4, dtype=torch.uint8)
    kept = fit(pixels if lying else pixels.mT, (8, 8), "smart", Random(0))
    assert (kept != 90).all()


def test_a_smart_crop_of_an_even_picture_is_the_centre():
    assert CROPS["smart"](torch.zeros(3, 8, 32), (8, 8), Random(0)) == (0, 12)


def test_flip_mirrors_left_and_right():
    data = encoded(gradient(16, 16), "PNG")
    plain = decode(data, (16, 16), (16, 16), "center", 0.0, Random(0))
    mirrored = decode(data, (16, 16), (16, 16), "center", 1.0, Random(0))
    assert torch.equal(plain.flip(2), mirrored) and not torch.equal(plain, mirrored)


def test_a_picture_of_the_size_of_its_bucket_is_not_touched():
    image = gradient(40, 24)
    pixels = decode(encoded(image, "PNG"), (24, 40), (24, 40), "center", 0, Random(0))
    assert pixels.permute(1, 2, 0).numpy().tobytes() == image.tobytes()


def test_a_turned_jpeg_is_upright_even_when_shrunk():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    data = encoded(gradient(400, 200), "JPEG", exif=exif, quality=95)
    pixels = decode(data, (400, 200), (40, 20), "center", 0, Random(0)).float()  # upright 200 × 400
    top, bottom = pixels[:, 0].mean(1), pixels[:, -1].mean(1)
    assert bottom[0] - top[0] > 200 and abs(bottom[1] - top[1]) < 20


def test_a_broken_picture_raises():
    with pytest.raises(ValueError, match="not a picture"):
        decode(b"nothing", (8, 8), (8, 8), "center", 0, Random(0))


def test_a_size_that_was_noted_wrong_is_found_out():
    data = encoded(gradient(100, 30), "PNG")
    with pytest.raises(UnusableError, match="says 10 x 10 px, the picture has 100 x 30") as caught:
        decode(data, (10, 10), (16, 16), "center", 0, Random(0))
    assert caught.value.kind is Kind.FALSE_SIZE


def ideal(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Shrunk by Lanczos' filter in floating point."""
    colours = [Image.fromarray(colour.astype(np.float32)) for colour in pixels.numpy()]
    shrunk = [colour.resize(size[::-1], Image.Resampling.LANCZOS) for colour in colours]
    return torch.from_numpy(np.stack([np.asarray(colour) for colour in shrunk]))


def psnr(expected: torch.Tensor, found: torch.Tensor) -> float:
    """In dB, of 8-bit pixels."""
    return float(10 * torch.log10(255**2 / (expected - found).square().mean()))


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field"])
@pytest.mark.parametrize("shrink", [1.1, 1.25, TWO_TAPS])
def test_two_taps_are_nearer_to_the_ideal_than_the_antialiased_filter(name, shrink):
    data = pytest.importorskip("skimage.data")
    pixels = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)
    side = int(min(pixels.shape[1:]) / shrink) + 4  # so that the factor is not more than `shrink`
    found = fit(pixels, (side, side), "center", Random(0))
    whole = (side, side * pixels.shape[2] // pixels.shape[1])
    antialiased = F.interpolate(pixels[None], whole, mode="bilinear", antialias=True)[0]
    expected = ideal(pixels, whole)
    left = round((whole[1] - side) / 2)
    window = (slice(None), slice(None), slice(left, left + side))
    assert psnr(expected[window], found) > psnr(expected[window], antialiased[window])


def test_stripes_that_are_too_fine_for_the_bucket_become_grey():
    """Beyond TWO_TAPS: they must not come back as others, coarser than they were."""
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(96)  # of one pixel each
    found = fit(stripes.expand(3, 192, 192), (120, 120), "center", Random(0))
    assert TWO_TAPS < 192 / 120 and found.float().std() < 25
