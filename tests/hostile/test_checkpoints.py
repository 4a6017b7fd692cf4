"""Checkpoints that are whole by their checksums, and yet not what training writes; `fuzz_files` has more."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset_tools.data_config import DataConfig
from dataset_tools.stream import Stream
from scripts.export_checkpoint import main as export
from tests.hostile.broken_data import picture, sample, tar_bytes
from train.checkpoints.files import facts_of
from train.checkpoints.folders import CheckpointError, Checkpoints, damage
from train.checkpoints.plain import check_alike
from train.checkpoints.shards import Shards, write_pieces
from train.parallel.pieces import Piece
from train.state import read_state

PLAIN = {
    "networks": {"net": {"network": "net"}},
    "optimizers": {},
    "recipe": {},
    "counters": {"step": 1},
    "means": [],
    "exports": True,
}


def checkpoint(folder: Path, plain: Any = PLAIN, files: Any = None) -> Path:
    path = folder / "run" / "checkpoints" / "step_00000001"
    path.mkdir(parents=True)
    write_pieces(path / "rank_00000.safetensors", {"weights/net/a": Piece(torch.ones(2), (0,))})
    (path / "state.json").write_text(json.dumps(plain))
    (path.parent / "latest").write_text(path.name)
    seal(path, files or {})
    return path


def seal(path: Path, files: dict) -> None:
    there = {each.name: facts_of(each) for each in path.iterdir() if each.name != "manifest.json"}
    (path / "manifest.json").write_text(json.dumps(there | files))


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b", "..", "a\nb", ""])
def test_a_manifest_names_files_of_its_folder(tmp_path: Path, name: str) -> None:
    said = damage(checkpoint(tmp_path, files={name: {"bytes": 1, "sha256": ""}}))
    assert said and "expected names of files in this folder" in said


def test_no_file_is_read_that_the_manifest_does_not_know(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    assert damage(path) is None
    write_pieces(path / "rank_00001.safetensors", {"weights/net/b": Piece(torch.ones(2), (0,))})
    assert "does not know rank_00001.safetensors" in str(damage(path))


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    for name, said in (("state.json", "missing"), ("manifest.json", "no such file")):
        (path / name).unlink()
        os.mkfifo(path / name)
        assert said in str(damage(path))
    checkpoints = Checkpoints(path.parent)
    (path.parent / "latest").unlink()
    os.mkfifo(path.parent / "latest")
    assert checkpoints.usable() == [path]


@pytest.mark.parametrize("named", ["../checkpoints/step_00000001", "/etc", "step_", "step_" + "9" * 99])
def test_latest_names_a_checkpoint_of_its_folder(tmp_path: Path, named: str) -> None:
    path = checkpoint(tmp_path)
    (path.parent / "latest").write_text(named)
    assert Checkpoints(path.parent).usable() == [path]


def test_of_a_link_to_a_folder_the_link_alone_is_removed(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (path.parent / "step_00000000").symlink_to(tmp_path / "mine")
    (path.parent / "x.unfinished").symlink_to(tmp_path / "mine")
    checkpoints = Checkpoints(path.parent, keep_last=1)
    checkpoints.clean()
    checkpoints.prune()
    assert sorted(each.name for each in path.parent.iterdir()) == ["latest", path.name]
    assert (tmp_path / "mine" / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["../net", "/tmp/net", "a.b", ""])
def test_weights_are_exported_into_their_folder(tmp_path: Path, name: str, capsys) -> None:
    path = checkpoint(tmp_path, {**PLAIN, "networks": {name: {}}})
    assert export([str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert "expected the names of networks" in error and "\n" not in error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counters": {"step": -1}}, "counters.step: expected at least 0"),
        ({"counters": {"step": 2}}, "counters.step: expected 1, found 2"),
        ({"counters": {"step": 1, "run_id": "../x"}}, "counters.run_id"),
        ({"processes": 0}, "processes: expected at least 1"),
        ({"means": [{"loss": ["x"]}]}, "means"),
        ({"optimizers": []}, "optimizers: expected settings"),
        ({"more": 1}, "more: unknown key"),
    ],
)
def test_plain_values_are_of_their_types(tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_state(checkpoint(tmp_path, {**PLAIN, **change}))


@pytest.mark.parametrize(
    "offsets",
    [((0, 0), (0, 0), (3, 0)), ((0, 0), (1, 0), (9, 0)), ((1, 0), (2, 0), (3, 0)), ((0, 0), (1, 1), (2, 0))],
)
def test_pieces_lie_one_behind_the_other(tmp_path: Path, offsets: Any) -> None:
    """Where two lie over each other, a third may be missing though their sizes add up."""
    for rank, place in enumerate(offsets):
        write_pieces(tmp_path / f"rank_{rank:05d}.safetensors", {"a": Piece(torch.ones(1, 2), place)})
    with pytest.raises(CheckpointError, match="pieces of it are missing"):
        Shards(tmp_path)


def test_a_recipe_takes_a_state_that_is_like_its_own() -> None:
    own = {"a": 1, "b": [1], "c": {"d": torch.zeros(2), "e": 0.5}}
    check_alike({"a": 7, "b": [], "c": {"d": torch.ones(2), "e": 2.0}}, own, "recipe")
    for change in ({"a": True}, {"a": 2**70}, {"b": {}}, {"c": {"d": torch.ones(3), "e": 0.5}}, {"f": 1}):
        with pytest.raises(ValueError, match="recipe"):
            check_alike({**own, **change}, own, "recipe")


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    members = [each for n in range(6) for each in sample(f"{n}", picture(n, (32, 32)))]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    config = DataConfig(
        str(tmp_path), image_size_px=32, aspect_ratios=("1/1",), batch_size=2, num_workers=0, split="samples"
    )
    made = Stream(config)
    next(iter(made))
    return made


REFERENCE = ["a.tar", "k", 0, 100, [32, 32], [32, 32], "a caption", 0, ""]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("lanes", 0, "snapshot", "waiting"), [["pipe:touch canary", *REFERENCE[1:]]], "has no shard 'pipe:"),
        (
            ("lanes", 0, "snapshot", "waiting"),
            [["/etc/passwd", *REFERENCE[1:]]],
            "has no shard '/etc/passwd'",
        ),
        (("lanes", 0, "snapshot", "waiting"), [REFERENCE[:5]], "expected a list of 9"),
        (("lanes", 0, "snapshot", "waiting"), [[*REFERENCE[:4], [0, 32], *REFERENCE[5:]]], "1 to 1048576 px"),
        (("lanes", 0, "snapshot", "courses"), [[0, -5, 0]], "found -5"),
        (("lanes", 0, "snapshot", "courses"), [[0, 0]], "expected a list of 3"),
        (("lanes", 0, "done"), 10**9, "or a little more, found 1000000000"),
        (("lanes",), [], "lanes: expected a list of 1, found 0"),
        (("next_lane",), 4, "next_lane"),
        (("epoch",), "1", "epoch: expected a whole number"),
        (("taken",), {"a": -1}, "taken.a"),
        (("left_out",), {"not an image": {"x": None}}, "left_out.not an image.x"),
    ],
)
def test_a_position_leads_to_what_the_settings_name(
    stream: Stream, tmp_path: Path, path: tuple, value: Any, said: str
) -> None:
    state = json.loads(json.dumps(stream.state_dict()))
    stream.load_state_dict(state)
    *above, last = path
    inner = state
    for key in above:
        inner = inner[key]
    inner[last] = value
    for row in value if last == "waiting" else []:
        row[0] = row[0].replace("a.tar", str(tmp_path / "a.tar"))
    with pytest.raises(ValueError, match=said):
        stream.load_state_dict(state)
