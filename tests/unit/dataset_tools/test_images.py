"""Opening pictures on purpose: every pixel format, orientation and kind of damage."""

import contextlib
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataset_tools import images
from dataset_tools.images import image_size, open_image, read_header


def encode(image: Image.Image, fmt: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def corner_picture() -> Image.Image:
    """Return a 48 x 32 grey picture whose top left quarter is red."""
    image = Image.new("RGB", (48, 32), "grey")
    image.paste("red", (0, 0, 24, 16))
    return image


def is_red(pixel) -> bool:
    red, green, blue = pixel
    return red > 200 and green < 80 and blue < 80


def stored_for(orientation: int) -> Image.Image:
    """Return the corner picture as a camera stores it with this EXIF orientation."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = corner_picture()
    return image.transpose(inverse[orientation]) if orientation in inverse else image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "fmt, options",
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 95}),
        ("MPO", {"quality": 95}),
    ],
)
def test_orientation_is_undone_in_every_format_that_can_carry_it(fmt, options, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(stored_for(orientation), fmt, exif=exif, **options)
    assert image_size(data) == (48, 32)
    image = open_image(data)
    assert image.size == (48, 32)
    assert is_red(image.getpixel((8, 6)))
    assert not is_red(image.getpixel((40, 26)))


def png_chunks(data: bytes) -> list[bytes]:
    chunks, position = [], 8
    while position < len(data):
        end = position + 12 + struct.unpack_from(">I", data, position)[0]
        chunks.append(data[position:end])
        position = end
    return chunks


def test_png_orientation_behind_the_pixels_counts_for_size_and_pixels_alike():
    exif = Image.Exif()
    exif[274] = 6
    data = encode(stored_for(6), "PNG", exif=exif)
    chunks = png_chunks(data)
    late = [c for c in chunks if c[4:8] == b"eXIf"]
    early = [c for c in chunks if c[4:8] not in (b"eXIf", b"IEND")]
    data = data[:8] + b"".join(early + late + chunks[-1:])
    assert len(late) == 1
    assert image_size(data) == open_image(data).size == (48, 32)


def test_damaged_exif_does_not_make_a_picture_unreadable():
    data = encode(corner_picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert image_size(data) == open_image(data).size == (48, 32)


def test_size_needs_the_header_only():
    data = encode(Image.effect_noise((400, 300), 50), "PNG")
    assert image_size(data[:200]) == (400, 300)


def test_sixteen_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(16, 0)
    for fmt in ("PNG", "TIFF", "PPM"):
        image = open_image(encode(Image.fromarray(ramp), fmt))
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image)[0, :, 0].astype(int) - np.arange(256)).max() <= 1, fmt


@pytest.mark.parametrize("peak", [1.0, 255.0, 65535.0, 1e6])
def test_floating_point_is_scaled_to_the_white_it_reaches(peak):
    ramp = np.linspace(0, peak, 64, dtype=np.float32)[None].repeat(4, 0)
    pixels = np.asarray(open_image(encode(Image.fromarray(ramp), "TIFF")))[0, :, 0]
    assert pixels[0] == 0
    assert pixels[-1] == 255
    assert abs(int(pixels[32]) - 130) <= 1


def test_not_a_number_is_black():
    ramp = np.full((4, 4), [0.5, np.nan, 0.5, 0.5], dtype=np.float32)
    assert np.asarray(open_image(encode(Image.fromarray(ramp), "TIFF")))[0, 1].tolist() == [0, 0, 0]


def test_transparent_becomes_white():
    rgba = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    rgba.putpixel((0, 0), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    for fmt in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if fmt == "WEBP" else {}
        image = open_image(encode(rgba, fmt, **options))
        assert image.getpixel((3, 3)) == (255, 255, 255)
        assert image.getpixel((0, 0)) == (255, 0, 0)
        assert image.getpixel((1, 0)) == (127, 127, 127)


def test_transparent_palette_and_grey_become_white():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    assert open_image(encode(palette, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encode(palette, "PNG")).getpixel((0, 0)) == (255, 0, 0)
    grey = Image.new("LA", (4, 4), (10, 0))
    assert open_image(encode(grey, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    named = Image.new("L", (4, 4), 10)
    assert open_image(encode(named, "PNG", transparency=10)).getpixel((0, 0)) == (255, 255, 255)


def test_transparent_level_of_sixteen_bit_grey_is_white():
    deep = Image.fromarray(np.full((4, 4), [1000, 65535 // 2, 0, 0], dtype=np.uint16))
    image = open_image(encode(deep, "PNG", transparency=1000))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 0)) == (127, 127, 127)


def test_grey_and_bilevel_become_rgb():
    assert open_image(encode(Image.new("L", (4, 4), 77), "PNG")).getpixel((0, 0)) == (77, 77, 77)
    assert open_image(encode(Image.new("1", (4, 4), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("fmt", ["JPEG", "TIFF"])
def test_cmyk_is_converted(fmt):
    image = open_image(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), fmt))
    assert image.mode == "RGB"
    assert is_red(image.getpixel((8, 8)))


def test_lab_is_converted():
    lab = Image.new("LAB", (4, 4), (136, 208, 195))  # CIE L 53, a 80, b 67: sRGB red
    assert is_red(open_image(encode(lab, "TIFF")).getpixel((0, 0)))


def swapped_profile() -> bytes:
    """Return a colour profile that is sRGB with red and green exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"tmp_").replace(b"gXYZ", b"rXYZ").replace(b"tmp_", b"gXYZ")


def test_embedded_profile_is_applied_and_a_damaged_one_is_ignored():
    plain = Image.new("RGB", (4, 4), (200, 100, 50))
    swapped = open_image(encode(plain, "PNG", icc_profile=swapped_profile())).getpixel((0, 0))
    assert np.abs(np.subtract(swapped, (100, 200, 50))).max() <= 2
    assert open_image(encode(plain, "PNG", icc_profile=b"no profile")).getpixel((0, 0)) == (200, 100, 50)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert open_image(encode(plain, "PNG", icc_profile=srgb)).getpixel((0, 0)) == (200, 100, 50)


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_pictures_give_the_first_frame(fmt):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:])
    assert is_red(open_image(data).getpixel((4, 4)))


def test_result_carries_nothing_of_the_source():
    data = encode(Image.new("RGB", (4, 4)), "PNG", dpi=(300, 300), icc_profile=b"no profile")
    assert open_image(data).info == {}


@pytest.mark.parametrize("name", ["empty", "text", "truncated", "zeros", "eps", "svg"])
def test_unreadable_pictures_raise_one_line(name):
    jpeg = encode(Image.effect_noise((64, 64), 50), "JPEG")
    data = {
        "empty": b"",
        "text": b"this is not a picture\n",
        "truncated": jpeg[: len(jpeg) // 2],
        "zeros": bytes(1000),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }[name]
    with pytest.raises(ValueError) as caught:
        open_image(data)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_damage_never_raises_anything_else():
    rng = np.random.default_rng(0)
    noise = Image.effect_noise((32, 32), 50).convert("RGB")
    for data in (encode(noise, fmt) for fmt in ("JPEG", "PNG", "WEBP", "GIF", "TIFF")):
        for _ in range(40):
            damaged = bytearray(data)
            for position in rng.integers(0, len(data), 3):
                damaged[position] = rng.integers(256)
            with contextlib.suppress(ValueError):
                assert open_image(bytes(damaged)).size == image_size(bytes(damaged))


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG file that promises this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("size", [(20000, 20000), (60000, 60000)])
def test_decompression_bombs_are_refused_by_their_header(size, recwarn):
    with pytest.raises(ValueError, match="pixels"):
        open_image(bomb(*size))
    with pytest.raises(ValueError, match="pixels"):
        image_size(bomb(*size))
    assert not recwarn.list


def test_the_limit_of_size_can_be_raised():
    assert image_size(bomb(16320, 12240), max_megapixels=200) == (16320, 12240)


def test_header_names_the_format_of_the_content():
    picture = Image.new("RGB", (4, 4))
    assert read_header(encode(picture, "JPEG")).ext == "jpg"
    assert read_header(encode(picture, "PNG")).ext == "png"
    assert read_header(encode(picture, "TIFF")).ext == "tif"


def test_programs_and_undecodable_formats_are_not_among_the_suffixes():
    assert {".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".gif", ".bmp"} <= images.SUFFIXES
    assert not {".eps", ".ps", ".wmf", ".h5", ".mpg"} & images.SUFFIXES
