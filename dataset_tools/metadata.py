"""What a picture file says beside its pixels, measured before Pillow reads it.

Pillow joins comments and segments piece by piece, and keeps every tag of a TIFF or EXIF directory: a file of
some megabytes can hold it up for hours, or claim all memory by tags that point to the same bytes.
"""

import struct
from collections.abc import Iterator

from dataset_tools.kinds import Kind, UnusableError

MAX_JPEG_BYTES = 1 << 24
"""Of segments before a JPEG's pixels; a colour profile can have so much."""
MAX_GIF_BYTES = 1 << 20
"""Of extensions before a GIF's first frame."""
SHARED_BYTES = 1 << 16
"""By which tags may overlap each other."""
_TAG_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}


def check_metadata(data: bytes) -> None:
    """Raise UnusableError for a picture file whose metadata are a bomb; says nothing of other faults."""
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"GIF8") and len(data) > MAX_GIF_BYTES:
        _check_sum(sum(_gif_extensions(data)), MAX_GIF_BYTES)
    elif not is_honest(data):
        raise UnusableError(Kind.BOMB, "the tags of the TIFF claim more bytes than the file has")


def is_honest(tiff: bytes) -> bool:
    """Whether the tags of a TIFF's or EXIF's first directory hold no more than there is; True of others."""
    orders = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
    tiff = tiff.removeprefix(b"Exif\0\0")
    if (order := orders.get(tiff[:4])) is None:
        return True
    is_big = b"+" in tiff[:4]
    head, count, entry = ("Q", "Q", "HHQQ") if is_big else ("I", "H", "HHII")
    try:
        (start,) = struct.unpack_from(order + head, tiff, 8 if is_big else 4)
        (num_tags,) = struct.unpack_from(order + count, tiff, start)
        first = start + struct.calcsize(order + count)
        size = struct.calcsize(order + entry)
        tags = struct.iter_unpack(order + entry, tiff[first : first + min(num_tags, 1 << 16) * size])
        sizes = [_TAG_BYTES.get(kind, 0) * number for _, kind, number, _ in tags]
    except (struct.error, OverflowError):  # a damaged directory; Pillow will say so
        return True
    return sum(size for size in sizes if size <= len(tiff)) <= len(tiff) + SHARED_BYTES


def _check_jpeg(data: bytes) -> None:
    exif = bytearray()
    total = 0
    for marker, start, length in _jpeg_segments(data):
        total += length
        _check_sum(total, MAX_JPEG_BYTES)
        if marker == 0xE1 and data.startswith(b"Exif\0\0", start):
            exif += data[start + 6 if exif else start : start + length]
    if not is_honest(bytes(exif)):
        raise UnusableError(Kind.BOMB, "the EXIF tags claim more bytes than there are")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, number of bytes) of the segments before the pixels, as far as they are sound."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # filling, and markers without length
            position += 1 if marker == 0xFF else 2
            continue
        if marker in (0xDA, 0xD9) or length < 2:
            return
        yield marker, position + 4, length - 2
        position += 2 + length


def _gif_extensions(data: bytes) -> Iterator[int]:
    """Yield the lengths of the blocks of the extensions before a GIF's first frame."""
    position = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while data[position : position + 1] == b"!":
        position += 2
        while position < len(data) and (length := data[position]):
            yield length
            position += 1 + length
        position += 1


def _check_sum(found: int, most: int) -> None:
    if found > most:
        raise UnusableError(Kind.BOMB, f"comments and profiles of {found} bytes, more than {most}")
