"""Precomputed latents that are damaged, or lie about themselves, are left out or refused in one line."""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset_tools.latents import packed, unpacked
from dataset_tools.stream import Stream
from modules.schema import ConfigError
from tests.integration.latents_cases import SEED, Made
from train.config import config_from_plain


def test_latents_that_are_not_finite_or_of_no_size_or_of_too_large_a_picture_are_skipped(
    made: Made, tmp_path: Path
) -> None:
    source, folder = made.latents("stage_c"), tmp_path / "odd"
    folder.mkdir()
    (folder / "precomputed.json").write_bytes((source / "precomputed.json").read_bytes())
    (folder / "empty.safetensors").write_bytes((source / "empty.safetensors").read_bytes())
    data = bytearray((source / "000001.tar").read_bytes())
    start = data.index(b'{"__metadata__"')
    end = start + int.from_bytes(data[start - 8 : start], "little")
    data[end : end + 2] = b"\xff\x7f"  # NaN
    first, second = (match.start() for match in list(re.finditer(rb'"width_px": ', data))[1:3])
    data[first : first + 12] = b'"width_??": '
    data[second : second + 14] = b'"width_px": ""'
    (folder / "000001.tar").write_bytes(data)
    settings = made.settings("stage_c", folder, epochs=1, alternative_share=0.0)
    stream = Stream(config_from_plain(settings).data, seed=SEED)
    assert sum(len(batch["keys"]) for batch in stream) == 5
    assert stream.skipped == {"latents": 3}
    settings["data"]["max_megapixels"] = 0.001
    with pytest.raises(ValueError, match="6 huge"):
        next(iter(Stream(config_from_plain(settings).data, seed=SEED)))


def test_damaged_latents_are_skipped_and_counted(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in made.latents("stage_c").iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    data = bytearray((folder / "000001.tar").read_bytes())
    for number, damage in ((0, b"\xff" * 8), (3, b"\0" * 8)):  # lengths of headers
        at = -1
        for _ in range(number + 1):
            at = data.index(b'{"__metadata__"', at + 1)
        data[at - 8 : at] = damage
    (folder / "000001.tar").write_bytes(data)
    stream = Stream(config_from_plain(made.settings("stage_c", folder)).data, seed=SEED)
    for _, batch in zip(range(12), stream, strict=False):
        assert batch["latents"].isfinite().all()
    assert stream.skipped == {"latents": 2}


@pytest.mark.parametrize(
    "change",
    [
        "[1]",
        "{",
        {"versions": 0},
        {"dtype": "pickle"},
        {"networks": {"stage_a": {"identity": "x", "shape": [-4]}}},
        {"networks": {"mystery": {"identity": "x", "shape": [4]}}},
        {"surprise": 1},
    ],
)
def test_facts_that_lie_are_one_line(made: Made, tmp_path: Path, change: Any) -> None:
    facts = json.loads((made.latents("stage_c") / "precomputed.json").read_text())
    (tmp_path / "precomputed.json").write_text(
        change if isinstance(change, str) else json.dumps(facts | change)
    )
    (tmp_path / "0.tar").write_bytes((made.latents("stage_c") / "000000.tar").read_bytes())
    with pytest.raises(ConfigError, match=r"precomputed.json") as caught:
        Stream(config_from_plain(made.settings("stage_c", tmp_path)).data)
    assert "\n" not in str(caught.value)


def test_compressed_bytes_come_back_and_cannot_grow_out_of_measure(monkeypatch) -> None:
    for data in (b"", b"a", bytes(range(256)) * 3 + b"odd"):
        assert unpacked(packed(data)) == data
    many = torch.randn(50_000).bfloat16().view(torch.uint8).numpy().tobytes()
    assert len(packed(many)) < 0.75 * len(many)
    monkeypatch.setattr("dataset_tools.latents.MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(ValueError, match="grow to more than 1000 bytes"):
        unpacked(packed(many))
    for bad in (zlib.compress(bytes(10_000_000)), packed(many)[:-5], b"not compressed"):
        with pytest.raises(ValueError, match="latents"):
            unpacked(bad)
