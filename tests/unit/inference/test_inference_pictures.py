"""Files of pictures: metadata, names, and nothing overwritten or half-written."""

import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.pictures import Picture, open_picture, readable, slug, write_picture, write_png

FACTS: dict[str, Any] = {
    "task": "text_to_image",
    "prompt": "ein roter Kreis, groß – 赤い円",
    "negative_prompt": "blau",
    "seed": 11,
    "width_px": 20,
    "height_px": 12,
    "stage_c": {"steps": 20, "sampler": "ddpm", "guidance": 4.0},
    "stage_b": {"steps": 10, "sampler": "ddim", "guidance": 1.1},
    "run": "outputs/demo",
    "weights": {"stage_c": None},
    "versions": {"kaskade": "0.1.0"},
}


def noise_image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8))


def test_a_picture_and_its_facts_come_back(tmp_path: Path) -> None:
    path = write_picture(Picture(noise_image(), FACTS), tmp_path)
    back = open_picture(path)
    assert back.facts == FACTS
    assert np.array_equal(np.asarray(back.image), np.asarray(noise_image()))


def test_other_tools_find_the_usual_line(tmp_path: Path) -> None:
    path = write_picture(Picture(noise_image(), FACTS), tmp_path)
    with Image.open(path) as opened:
        text = opened.info["parameters"]
    prompt, negative, settings = text.split("\n")
    assert prompt == FACTS["prompt"]
    assert negative == "Negative prompt: blau"
    assert settings.startswith("Steps: 20, Sampler: ddpm, CFG scale: 4.0, Seed: 11, Size: 20x12")


def test_adapters_are_told_by_name() -> None:
    loras = [{"weights": "outputs/lora", "weight": 0.8}, {"weights": "b.safetensors", "weight": 1.0}]
    controls = [{"weights": "outputs/canny", "scale": 0.5}]
    text = readable({**FACTS, "loras": loras, "controls": controls})
    assert "LoRAs: lora:0.8 b.safetensors:1.0, ControlNets: canny:0.5," in text
    assert "LoRAs" not in readable({**FACTS, "loras": []})


def test_no_empty_negative_prompt_is_shown() -> None:
    assert "Negative" not in readable({**FACTS, "negative_prompt": ""})


def test_names_are_made_of_prompt_and_seed_and_never_taken_twice(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: write_picture(Picture(noise_image(), FACTS), tmp_path), range(24)))
    assert len(set(paths)) == 24
    assert paths.count(tmp_path / "ein-roter-kreis-groß-赤い円_11.png") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    class Unsaveable(Image.Image):
        def save(self, *args: Any, **keywords: Any) -> None:
            args[0].write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_png(Unsaveable(), tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "expected"), [("A red/circle: ../x", "a-red-circle-x"), ("", "picture"), ("!?", "picture")]
)
def test_slugs_are_safe_names(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


def test_slugs_are_short() -> None:
    assert len(slug("word " * 100)) <= 48


def test_pictures_without_facts_are_refused_in_one_line(tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    noise_image().save(plain)
    with pytest.raises(ValueError, match="does not say how it was made"):
        open_picture(plain)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        open_picture(text)
    with pytest.raises(FileNotFoundError, match="none.png does not exist"):
        open_picture(tmp_path / "none.png")
    huge, size = tmp_path / "huge.png", struct.pack(">II", 30_000, 30_000)
    head = b"IHDR" + size + bytes((8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    huge.write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        open_picture(huge)


def test_cut_pictures_are_refused(tmp_path: Path) -> None:
    path = write_picture(Picture(noise_image(), FACTS), tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        open_picture(path)


def test_facts_are_json(tmp_path: Path) -> None:
    path = write_picture(Picture(noise_image(), FACTS), tmp_path)
    with Image.open(path) as opened:
        assert json.loads(opened.info["kaskade"]) == FACTS
