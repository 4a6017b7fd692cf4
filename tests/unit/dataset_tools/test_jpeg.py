"""JPEGs decoded past Pillow: the same pixels, and Pillow's judgement of all that is unusual."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataset_tools import images
from dataset_tools.images import open_image, read_pixels
from dataset_tools.jpeg import decode_jpeg
from dataset_tools.kinds import Kind, UnusableError

SIZE = (203, 157)  # no multiples of a block


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image | None = None, **options) -> bytes:
    file = BytesIO()
    (image or picture()).save(file, "JPEG", **options)
    return file.getvalue()


def turned(orientation: int) -> dict:
    exif = Image.Exif()
    exif[274] = orientation
    return {"exif": exif}


CASES = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "own tables": {"optimize": True, "quality": 30},
    "restarts": {"restart_marker_blocks": 2},
    "rgb": {"keep_rgb": True},
    "sRGB profile": {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
    "comment": {"comment": b"a comment" * 1000},
    **{f"orientation {number}": turned(number) for number in range(1, 9)},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_sound_jpegs_are_decoded_past_pillow_to_the_same_pixels(options, monkeypatch):
    data = jpeg(**options)
    expected = np.asarray(open_image(data))
    monkeypatch.setattr(images, "_decoded", None)  # so Pillow cannot have done it
    assert np.array_equal(read_pixels(data), expected)


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_as_small_as_suffices(shrink, orientation):
    stored = picture((400, 240))
    upright_size = stored.size if orientation == 1 else stored.size[::-1]
    data = jpeg(stored, quality=95, subsampling=0, **turned(orientation))
    at_least = (upright_size[0] // shrink, upright_size[1] // shrink)
    pixels = read_pixels(data, at_least)
    assert pixels.shape == (at_least[1], at_least[0], 3)
    expected = open_image(data).reduce(shrink)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 2
    barely = (at_least[0] - 1, at_least[1] - 1)
    assert read_pixels(data, barely).shape == pixels.shape


def grey(data: bytes) -> bytes:
    return jpeg(picture().convert("L"))


def cmyk(data: bytes) -> bytes:
    return jpeg(picture().convert("CMYK"))


def other_profile(data: bytes) -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    swapped = swapped.replace(b"rXYZ", b"tmp_").replace(b"gXYZ", b"rXYZ").replace(b"tmp_", b"gXYZ")
    return jpeg(icc_profile=swapped)


def extra_bytes(data: bytes) -> bytes:
    """Bytes before the end mark: libjpeg warns of them, and they harm nothing."""
    return data[:-2] + b"extra" + data[-2:]


def png(data: bytes) -> bytes:
    file = BytesIO()
    picture().save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("change", [grey, cmyk, other_profile, extra_bytes, png])
def test_what_is_unusual_comes_out_as_pillow_makes_it(change):
    data = change(jpeg())
    assert np.array_equal(read_pixels(data), np.asarray(open_image(data)))


def test_a_colour_profile_is_applied():
    assert not np.array_equal(read_pixels(other_profile(b"")), read_pixels(jpeg()))


def test_a_cut_jpeg_is_refused():
    data = jpeg(quality=95)
    for length in (len(data) // 2, len(data) - 200, len(data) - 2):
        assert decode_jpeg(data[:length], SIZE, None) is None
        with pytest.raises(UnusableError) as caught:
            read_pixels(data[:length])
        assert caught.value.kind is Kind.CUT_PICTURE


def test_damaged_pixels_are_left_to_pillow():
    data = bytearray(jpeg(restart_marker_blocks=1))
    place = data.index(b"\xff\xd3")  # a restart mark gone: libjpeg warns, and guesses
    data[place : place + 2] = b"\x11\x11"
    assert decode_jpeg(bytes(data), SIZE, None) is None


def test_a_file_of_two_sizes_is_not_decoded():
    """Two parsers may understand one file differently: memory is taken for the size that was checked."""
    data = jpeg()
    assert decode_jpeg(data, SIZE, None) is not None
    assert decode_jpeg(data, (SIZE[0] - 1, SIZE[1]), None) is None


def test_limits_and_claims_hold():
    data = jpeg(picture((1200, 1000)), quality=95)
    with pytest.raises(UnusableError) as caught:
        read_pixels(data, max_megapixels=1)
    assert caught.value.kind in (Kind.HUGE, Kind.BOMB)
    with pytest.raises(UnusableError) as caught:
        read_pixels(data, claimed=(1000, 1200))
    assert caught.value.kind is Kind.FALSE_SIZE


def test_the_array_belongs_to_its_reader():
    pixels = read_pixels(png(b""))
    pixels[0, 0] = 7  # fails for memory that Pillow lends
    assert pixels.dtype == np.uint8
