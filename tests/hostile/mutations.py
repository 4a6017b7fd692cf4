"""Sound shards, and what chance does to them."""

import io
import json
import tarfile
from collections.abc import Callable
from random import Random

from tests.hostile.broken_data import BROKEN, member, picture, sample

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
MODES = {"GIF": "P", "JPEG": "CMYK", "PNG": "RGBA", "TIFF": "I;16"}
FACTS = {"width_px": 48, "height_px": 40, "tags": ["a", "b"], "score": 0.5, "nested": {"a": None}}
FORMATS = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
TOKENS = (
    b"\0",
    b"\xff",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"NaN",
    b"1e999",
    b"[",
    b"{",
    b'"',
    b"../",
    b"%!PS",
)
HEADER_FIELDS = ((0, 100), (124, 12), (156, 1), (157, 100), (345, 155), (482, 30))
"""(start, length) of name, size, type, link, prefix, sparse map in a tar header."""


def fuzzed(number: int, seed: int) -> bytes:
    """The file of this number; always the same. Every third tar is sound, and only what it holds is not."""
    chance = Random(f"{seed}/{number}")
    data = _shard(chance)
    return data if number % 3 == 0 else _damaged(data, OF_TARS, chance)


def _damaged(data: bytes, ways: "tuple[Mutation, ...]", chance: Random) -> bytes:
    """The same bytes after some mutations."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if changed:
            chance.choice(ways)(changed, chance)
    return bytes(changed)


def _shard(chance: Random) -> bytes:
    """Pictures of many formats, captions and facts, many of them damaged; some samples of broken_data."""
    members = []
    layout = chance.choice(FORMATS)
    longest = 90 if layout == tarfile.USTAR_FORMAT else 150
    for number in range(chance.randint(1, 4)):
        kind = chance.choice(KINDS)
        mode = MODES.get(kind, "RGB") if chance.random() < 0.3 else "RGB"
        image = picture(chance.randrange(1 << 30), (48, 40), kind, mode)
        key = "x" * chance.choice((1, longest)) + str(number)
        members += sample(key, image, "é caption".encode(), json.dumps(FACTS).encode())
    if chance.random() < 0.2:
        members += chance.choice([way for ways in BROKEN.values() for way in ways])("bad")
    if chance.random() < 0.1:
        members.append(member("x0.pyd", b"cos\nsystem\n(S'false'\ntR."))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=layout) as archive:
        for info, whole in members:
            share = 0.6 if info.name.endswith(".png") else 0.1
            data = _damaged(whole, OF_CONTENTS, chance) if chance.random() < share else whole
            info.size = len(data)
            info.pax_headers = {"comment": "a"} if chance.random() < 0.3 else {}
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _flip(data: bytearray, chance: Random) -> None:
    for _ in range(chance.choice((1, 3, 30))):
        data[chance.randrange(len(data))] = chance.randrange(256)


def _put(data: bytearray, chance: Random) -> None:
    for _ in range(chance.choice((1, 5))):
        token, start = chance.choice(TOKENS), chance.randrange(len(data))
        data[start : start + len(token)] = token


def _cut(data: bytearray, chance: Random) -> None:
    del data[chance.randrange(len(data)) :]


def _drop(data: bytearray, chance: Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.choice((1, 100, 512, 5000))]


def _repeat(data: bytearray, chance: Random) -> None:
    start = chance.randrange(len(data))
    data[start:start] = data[start : start + chance.choice((1, 512, 5000))] * chance.choice((1, 3, 50))


def _damage_head(data: bytearray, chance: Random) -> None:
    """Damage the first bytes, where pictures say their size."""
    for _ in range(chance.choice((1, 3))):
        data[chance.randrange(min(len(data), 200))] = chance.choice(
            (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
        )


def _change_header(data: bytearray, chance: Random) -> None:
    """Change a field of a tar header and make its checksum right; without that, it would be no header."""
    headers = [
        start for start in range(0, len(data) - 511, 512) if data[start + 257 : start + 262] == b"ustar"
    ]
    if not headers:
        return
    start = chance.choice(headers)
    header = data[start : start + 512]
    field, length = chance.choice(HEADER_FIELDS)
    numbers = (b"7" * length, b"\x80" + b"\xff" * (length - 1), bytes(length), chance.randbytes(length))
    kind = bytes([chance.choice(b"0123456789gxLKSVX\0")])
    header[field : field + length] = kind if length == 1 else chance.choice(numbers)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[start : start + 512] = header


Mutation = Callable[[bytearray, Random], None]
OF_CONTENTS: tuple[Mutation, ...] = (_flip, _put, _cut, _drop, _repeat, _damage_head, _damage_head)
OF_TARS: tuple[Mutation, ...] = (_flip, _put, _cut, _drop, _repeat, _change_header, _change_header)
