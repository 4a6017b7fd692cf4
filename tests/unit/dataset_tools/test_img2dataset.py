"""Shards as img2dataset writes them (output_format=webdataset) are read as they are."""

import io
import json

import pytest
from PIL import Image

from dataset_tools.__main__ import main
from dataset_tools.filters import Filter
from dataset_tools.stream import Stream
from tests.unit.dataset_tools.stream_cases import config

SIZES = [(32, 16), (16, 16), (24, 40)]


def picture(width: int, height: int, turned: bool = False) -> bytes:
    """A jpg; turned: a photograph that is to be shown on its side."""
    file = io.BytesIO()
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    Image.new("RGB", (width, height), (90, 120, 150)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def sample(number: int, caption: str | None, turned: bool = False) -> list[tuple[str, bytes]]:
    """The members of one sample in the order of the names' endings, as webdataset's writer sorts them."""
    key, (width, height) = f"{number // 10000:05d}{number % 10000:04d}", SIZES[number % 3]
    facts = {
        "url": f"https://example.org/{number}.jpg",
        "caption": caption,
        "key": key,
        "status": "success",
        "error_message": None,
        "width": width,
        "height": height,
        "original_width": 100 * width,
        "original_height": 100 * height,
        "exif": json.dumps({"Image Orientation": "Rotated 90 CW"}) if turned else "{}",
        "sha256": "0" * 64,
        "licence": "cc0" if number % 2 else None,
    }
    members = [("jpg", picture(width, height, turned)), ("json", json.dumps(facts, indent=4).encode())]
    members += [("txt", caption.encode())] if caption is not None else []
    return [(f"{key}.{ending}", content) for ending, content in members]


@pytest.fixture
def web(make_tar, tmp_path):
    """Two shards, of which the second has a picture without caption and a turned one."""
    folder = tmp_path / "web"
    make_tar(folder / "00000.tar", sum((sample(number, f"picture {number}") for number in range(6)), []))
    second = [
        *sample(10000, "picture 10000"),
        *sample(10003, None),
        *sample(10005, "picture 10005", turned=True),
    ]
    make_tar(folder / "00001.tar", second)
    for shard in ("00000", "00001"):
        (folder / f"{shard}.parquet").write_bytes(b"PAR1")
        (folder / f"{shard}_stats.json").write_text(json.dumps({"count": 6, "successes": 6}))
    return folder


def test_pictures_and_captions_are_read(web):
    stream = Stream(config(web, epochs=1, batch_size=1))
    found = {batch["keys"][0]: batch for batch in stream}
    assert set(found) == {f"00000{n:04d}" for n in range(6)} | {"000010000", "000010005"}
    assert stream.skipped == {"no_caption": 1}
    for key, batch in found.items():
        assert batch["captions"] == [f"picture {int(key)}"]
    shapes = {key: tuple(batch["images"].shape[2:]) for key, batch in found.items()}
    assert shapes["000000000"] == (8, 20) and shapes["000000002"] == (20, 8)
    assert shapes["000010005"] == (20, 8)  # 32 x 16 by its json, and to be shown on its side


def test_filters_use_the_columns_of_the_table(web):
    filters = [Filter("original_width", ">=", 2400), Filter("licence", "==", "cc0")]
    batches = list(Stream(config(web, epochs=1, batch_size=1, filters=filters)))
    assert {batch["keys"][0] for batch in batches} == {"000000003", "000000005", "000010005"}


def test_inspect_reads_them_too(web, capsys):
    assert main(["inspect", str(web), "--json", "--workers", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["shards"], found["samples"], found["broken"]) == (2, 9, [])
