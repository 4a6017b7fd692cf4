"""The demo's data: complete, repeatable, with combinations that training never sees."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset_tools.__main__ import main
from dataset_tools.records import read_samples
from dataset_tools.shapes import num_pairs, split_object, split_scenes
from dataset_tools.shapes_captions import full_caption, varied_caption, vocabulary
from dataset_tools.shapes_world import (
    BACKGROUNDS,
    COLOURS,
    OBJECTS,
    PLACES,
    RADII_PX,
    SHAPES,
    Scene,
    all_scenes,
    draw,
)


def read_all(folder: Path) -> list:
    samples = []
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as file:
            samples += list(read_samples(file, path.name, report=lambda broken: None))
    return samples


def test_world_has_every_combination_once() -> None:
    scenes = all_scenes()
    assert len(set(scenes)) == len(scenes) == 6 * 4 * 2 * 5 * 4


def test_held_out_scenes_are_not_trained_but_their_parts_are() -> None:
    training, held_out = split_scenes()
    assert not set(training) & set(held_out)
    assert set(training) | set(held_out) == set(all_scenes())
    for scene in held_out:
        for name in Scene._fields:
            assert any(getattr(other, name) == getattr(scene, name) for other in training)


def test_captions_always_name_colour_and_shape_and_vary() -> None:
    rng = np.random.default_rng(0)
    scene = Scene("purple", "cross", "large", "centre", "grey")
    captions = {varied_caption(scene, rng) for _ in range(200)}
    assert len(captions) > 50
    assert all("purple" in caption and "cross" in caption for caption in captions)
    assert any("big" in caption for caption in captions)
    words = {word for caption in captions for word in caption.split()}
    assert words <= set(vocabulary())
    assert set(COLOURS) | set(SHAPES) <= set(vocabulary())


def test_full_caption_names_everything() -> None:
    caption = full_caption(Scene("red", "circle", "small", "top left", "white"))
    assert caption == "a small red circle in the top left on a white background"


def test_same_scene_is_drawn_with_jitter() -> None:
    rng = np.random.default_rng(0)
    first, second = draw(all_scenes()[0], rng), draw(all_scenes()[0], rng)
    assert first.shape == (64, 64, 3)
    assert not np.array_equal(first, second)


def test_command_writes_both_splits_the_same_every_time(tmp_path: Path, capsys) -> None:
    for name in ("one", "two"):
        assert main(["shapes", str(tmp_path / name), "--train", "30", "--held-out", "10"]) == 0
    one, two = (read_all(tmp_path / name / "train") for name in ("one", "two"))
    assert len(one) == 30
    assert [sample.image_bytes for sample in one] == [sample.image_bytes for sample in two]
    training, held_out = split_scenes()
    for sample in read_all(tmp_path / "one" / "held_out"):
        scene = Scene(**{name: sample.facts[name] for name in Scene._fields})
        assert scene in held_out
        assert sample.caption == full_caption(scene)
    assert json.loads((tmp_path / "one" / "train" / "index.json").read_text())["samples"] == 30


def test_running_again_draws_nothing_and_other_settings_draw_anew(tmp_path: Path, capsys) -> None:
    out = tmp_path / "data"
    assert main(["shapes", str(out), "--train", "5", "--held-out", "5"]) == 0
    before = (out / "train" / "000000.tar").stat().st_mtime_ns
    assert main(["shapes", str(out), "--train", "5", "--held-out", "5"]) == 0
    assert (out / "train" / "000000.tar").stat().st_mtime_ns == before
    assert main(["shapes", str(out), "--train", "6", "--held-out", "5"]) == 0
    assert len(read_all(out / "train")) == 6
    (out / "shapes.json").write_bytes(b"{")
    assert main(["shapes", str(out), "--train", "7", "--held-out", "5"]) == 0
    assert len(read_all(out / "train")) == 7


def test_shards_of_somebody_else_are_left_alone(tmp_path: Path, capsys) -> None:
    theirs = tmp_path / "shapes" / "train" / "000007.tar"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    command = ["shapes", str(tmp_path / "shapes"), "--train", "3", "--held-out", "2"]
    assert main(command) == 2
    assert "000007.tar is no shard of `shapes`" in capsys.readouterr().err
    assert theirs.read_bytes() == b"theirs" and [*theirs.parent.iterdir()] == [theirs]
    theirs.unlink()
    assert main(command) == 0


def test_a_new_object_is_not_part_of_the_world() -> None:
    assert not set(OBJECTS) & {scene.shape for scene in all_scenes()}
    assert not {"pillar", "[pillar]"} & set(vocabulary())


def test_eight_pictures_of_a_new_object_show_every_attribute() -> None:
    training, held_out = split_object("pillar", 8)
    assert len(training) == len(set(training)) == 8
    for index, names in enumerate((COLOURS, {"pillar"}, RADII_PX, PLACES, BACKGROUNDS)):
        assert {scene[index] for scene in training} == set(names)
    assert num_pairs(training) == 8 * 6 + 6 + 2 + 5 + 4  # none twice, but for those with the object
    assert len(held_out) == len(set(held_out)) == 6 * 2 * 5 * 4 - 8
    assert not set(training) & set(held_out)


def test_command_draws_a_new_object_which_its_captions_call_by_a_token(tmp_path: Path, capsys) -> None:
    out = tmp_path / "pillar"
    assert main(["shapes", str(out), "--object", "pillar", "--held-out", "5"]) == 0
    samples = read_all(out / "train")
    assert len(samples) == 8
    for sample in samples:
        assert sample.facts["shape"] == "pillar"
        size, colour = sample.facts["size"], sample.facts["colour"]
        assert sample.caption.startswith(f"a {size} {colour} [pillar] in the ")
    assert main(["shapes", str(out), "--held-out", "5", "--train", "8"]) == 0  # another data set
    assert "[pillar]" not in read_all(out / "train")[0].caption


@pytest.mark.parametrize(
    "option, least, found", [("--train", 1, 0), ("--held-out", 1, -2), ("--seed", 0, -1)]
)
def test_impossible_numbers_are_one_line(tmp_path: Path, capsys, option: str, least: int, found: int) -> None:
    assert main(["shapes", str(tmp_path / "data"), option, str(found)]) == 2
    assert capsys.readouterr().err == f"error: {option}: expected at least {least}, found {found}\n"
    assert not (tmp_path / "data").exists()
