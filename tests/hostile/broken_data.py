"""A data set of sound samples, and of every kind of broken one."""

import gzip
import io
import json
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Member = tuple[tarfile.TarInfo, bytes]
PNG = b"\x89PNG\r\n\x1a\n"


def picture(seed: int = 0, size: tuple[int, int] = (32, 32), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A picture of noise. size: (width, height) px."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes], pixels: bytes = bytes(1000)) -> bytes:
    """A PNG that claims a size, with more chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return PNG + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, target
    return info, data


def sample(key: str, image: bytes, text: bytes = b"a caption", facts: bytes = b"{}") -> list[Member]:
    return [member(f"{key}.png", image), member(f"{key}.txt", text), member(f"{key}.json", facts)]


def tar_bytes(members: list[Member]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _tiff_bomb() -> bytes:
    """A TIFF of 100 KB whose tags claim 400 MB of it."""
    size, tags = 100_000, 4000
    entries = b"".join(struct.pack("<HHII", 40000 + n, 7, size - 60_000, 50_000) for n in range(tags))
    head = b"II*\0" + struct.pack("<IH", 8, tags) + entries
    return head + bytes(size - len(head))


def _gif_bomb() -> bytes:
    """A GIF with a comment of 2 MiB in 8000 blocks, which Pillow joins one by one."""
    gif = picture(kind="GIF", mode="P")
    start = 13 + (3 << ((gif[10] & 7) + 1))
    return gif[:start] + b"\x21\xfe" + (b"\xff" + b"x" * 255) * 8192 + b"\0" + gif[start:]


def _jpeg_bomb() -> bytes:
    """A JPEG of 20 MB of comments before its pixels."""
    jpeg = picture(kind="JPEG")
    return jpeg[:2] + (b"\xff\xfe\xff\xff" + bytes(65533)) * 300 + jpeg[2:]


_SOUND = picture()
_TEXT = zlib.compress(bytes(4 << 20))
_CLAIM = json.dumps({"width_px": 64, "height_px": 64}).encode()

# kind of what is wrong -> ways of being so; each makes the members of one sample of the given key
BROKEN: dict[str, list[Callable[[str], list[Member]]]] = {
    "unsafe_name": [
        lambda key: sample(f"../../{key}", _SOUND),
        lambda key: sample(f"/tmp/{key}", _SOUND),
        lambda key: sample(f"C:\\{key}", _SOUND),
        lambda key: sample(f"{key}\nx", _SOUND),
    ],
    "link": [
        lambda key: [member(f"{key}.png", kind=tarfile.SYMTYPE, target="/etc/passwd")],
        lambda key: [member(f"{key}.png", kind=tarfile.LNKTYPE, target="good.png")],
        lambda key: [member(f"{key}.png", kind=tarfile.CHRTYPE)],
    ],
    "repeated_member": [lambda key: [*sample(key, _SOUND), member(f"{key}.png", _SOUND)]],
    "repeated_key": [lambda key: [*sample(key, _SOUND), *sample(f"{key}x", _SOUND), *sample(key, _SOUND)]],
    "crowded": [lambda key: [member(f"{key}.{number}") for number in range(10_001)]],
    "no_caption": [lambda key: [member(f"{key}.png", _SOUND)]],
    "long_caption": [lambda key: sample(key, _SOUND, text=b"word " * 200_000)],
    "encoding": [
        lambda key: sample(key, _SOUND, text=b"caf\xe9"),
        lambda key: sample(key, _SOUND, text="caption".encode("utf-16")),
        lambda key: sample(key, _SOUND, text="caption".encode("utf-16-le")),
        lambda key: sample(key, _SOUND, text=b"a\0b"),
        lambda key: sample(key, _SOUND, facts=b'{"a": "\\ud800"}'),
    ],
    "not_json": [
        lambda key: sample(key, _SOUND, facts=b"{'a': 1}"),
        lambda key: sample(key, _SOUND, facts=b'{"a": ' + b"1" * 10_000 + b"}"),
    ],
    "no_object": [lambda key: sample(key, _SOUND, facts=b"[1, 2]")],
    "not_finite": [
        lambda key: sample(key, _SOUND, facts=b'{"a": NaN}'),
        lambda key: sample(key, _SOUND, facts=b'{"a": [1e999]}'),
    ],
    "nested": [lambda key: sample(key, _SOUND, facts=b'{"a": ' + b"[" * 100_000)],
    "huge_json": [lambda key: sample(key, _SOUND, facts=b'{"a": "' + b"x" * 300_000 + b'"}')],
    "repeated_name": [lambda key: sample(key, _SOUND, facts=b'{"a": 1, "b": {"c": 1, "c": 2}}')],
    "no_picture": [
        lambda key: [member(f"{key}.txt", b"alone")],
        lambda key: [member(f"{key}.eps", b"%!PS-Adobe"), member(f"{key}.txt", b"x")],
    ],
    "empty": [lambda key: sample(key, b"")],
    "not_picture": [
        lambda key: sample(key, b"<html>not found</html>" * 10),
        lambda key: sample(key, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"),
        lambda key: sample(key, b"II*\0" + bytes(40)),
    ],
    "cut_picture": [
        lambda key: sample(key, picture(kind="JPEG", size=(64, 64))[:2500]),
        lambda key: sample(key, picture(size=(64, 64))[:3000]),
        lambda key: sample(key, png(64, 64)),  # promises more pixels than it has
    ],
    "undecodable": [lambda key: sample(key, _SOUND[:60] + bytes(100) + _SOUND[160:])],
    "bomb": [
        lambda key: sample(key, png(60_000, 60_000)),
        lambda key: sample(key, png(30_000, 30_000)),
        lambda key: sample(key, png(32, 32, (b"zTXt", b"a\0\0" + _TEXT))),
        lambda key: sample(key, png(32, 32, (b"iCCP", b"a\0\0" + _TEXT))),
        lambda key: sample(key, _tiff_bomb()),
        lambda key: sample(key, _gif_bomb()),
        lambda key: sample(key, _jpeg_bomb()),
    ],
    "huge": [lambda key: sample(key, png(10_000, 10_000) + bytes(1_100_000))],
    "tiny": [lambda key: sample(key, picture(size=(1, 1)))],
    "narrow": [lambda key: sample(key, picture(size=(4, 400)))],
    "latents": [lambda key: [member(f"{key}.safetensors", bytes(64)), member(f"{key}.txt", b"x")]],
    "false_size": [lambda key: sample(key, _SOUND, facts=_CLAIM)],
}
SOUND: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: picture(1, kind="JPEG"),
    "cmyk": lambda: picture(2, kind="JPEG", mode="CMYK"),
    "grey16": lambda: picture(3, mode="I;16"),
    "palette": lambda: picture(4, mode="P"),
    "webp": lambda: picture(5, kind="WEBP"),
    "gif": lambda: picture(6, kind="GIF"),
    "transparent": lambda: picture(7, mode="RGBA"),
    "tiff": lambda: picture(8, kind="TIFF"),
}
"""Pictures that are odd, under a name ending in .png, but whole."""


def write_shards(folder: Path, num_good: int, num_ways: int | None = None) -> tuple[dict[str, int], set[str]]:
    """Write sound and broken samples, mixed, as four shards, and shards that are broken themselves.

    num_ways: of each kind, at most. Returns how many are broken of each kind, and the keys of the sound ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    broken = [(kind, way) for kind, ways in BROKEN.items() for way in ways[:num_ways]]
    good = [f"good{number:03}" for number in range(num_good)]
    samples = [sample(key, list(SOUND.values())[n % len(SOUND)]()) for n, key in enumerate(good)]
    for number, (_, way) in enumerate(broken):
        samples.insert((number * 7919) % len(samples), way(f"bad{number:03}"))
    for number in range(4):
        part = [each for members in samples[number::4] for each in members]
        (folder / f"{number}.tar").write_bytes(tar_bytes(part))
    counts = Counter(kind for kind, _ in broken)
    repeated = {
        f"bad{n:03}{end}" for n, (kind, _) in enumerate(broken) if kind == "repeated_key" for end in ("", "x")
    }
    return dict(counts + _break_shards(folder)), {*good, *repeated, "after_damage", "after_large"}


def _break_shards(folder: Path) -> Counter[str]:
    """Write shards that are damaged as a whole; two still hold a sound sample."""
    whole = tar_bytes(sample("cut", _SOUND))
    (folder / "cut.tar").write_bytes(whole[: 512 + len(_SOUND) // 2])
    (folder / "html.tar").write_bytes(b"<html>not found</html>" * 100)
    (folder / "empty.tar").write_bytes(b"")
    (folder / "packed.tar").write_bytes(gzip.compress(whole))
    (folder / "gone.tar").symlink_to(folder / "nowhere")
    end = 512 + 512 * -(-len(_SOUND) // 512) + 4 * 512  # of a sample: here the next one's header begins
    damaged = bytearray(
        tar_bytes([each for key in ("a", "b", "after_damage") for each in sample(key, _SOUND)])
    )
    damaged[end : end + 20] = b"\xff" * 20
    (folder / "damaged.tar").write_bytes(damaged)
    large, _ = member("large.png")
    large.size = 300 << 20
    with (folder / "large.tar").open("wb") as file:
        file.write(large.tobuf())
        file.seek(large.size, io.SEEK_CUR)  # takes no room on the disk
        file.write(tar_bytes(sample("after_large", _SOUND)))
    with (folder / "zeros.tar").open("wb") as file:
        file.write(tar_bytes([]))
        file.truncate(80 << 20)
    return Counter(cut=2, not_tar=3, unreachable=1, damaged=3, oversized=1, endless=1)
