"""The drawn folder of pictures to learn from: pairs, whose combinations are split in two halves."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataset_tools.shapes_pairs import draw_pair, write_pairs
from dataset_tools.shapes_world import BACKGROUNDS, COLOURS


def test_every_picture_has_a_caption_that_says_what_it_shows(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    pictures = sorted(tmp_path.glob("*.jpg"))
    assert len(pictures) == 24
    for path in pictures:
        colour, shape, _ = path.stem.split("_")
        caption = path.with_suffix(".txt").read_text(encoding="utf-8").split()
        assert caption[:4] == ["a", colour, shape, "on"] and caption[-1] == "background"
        with Image.open(path) as picture:
            corner = np.asarray(picture)[2, -3]  # off the diagonal
        assert np.abs(corner.astype(int) - BACKGROUNDS[caption[-2]]).max() < 16


def test_held_out_combinations_are_others(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a")
    write_pairs(tmp_path / "b", held_out=True)
    seen = [{path.stem.rpartition("_")[0] for path in (tmp_path / part).glob("*.jpg")} for part in "ab"]
    assert len(seen[0]) == len(seen[1]) == 12 and not seen[0] & seen[1]


def test_shapes_go_with_all_backgrounds(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    captions = [path.read_text(encoding="utf-8").split() for path in tmp_path.glob("*.txt")]
    assert len({(caption[2], caption[5]) for caption in captions}) == 16


def test_a_pair_is_two_shapes_in_the_middle_square() -> None:
    pixels = np.asarray(draw_pair("red", "circle", "white", 120, 90)).astype(int)
    for x, y in ((60 - 22, 45 - 22), (60 + 22, 45 + 22)):
        assert (pixels[y, x] == COLOURS["red"]).all()
    assert (pixels[45, 60] == BACKGROUNDS["white"]).all()
