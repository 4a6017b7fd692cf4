"""Checkpoints are whole or not there, the newest is found, damage is named, others are pruned."""

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from modules.whole_files import write_whole
from train.checkpoints.files import facts_of
from train.checkpoints.folders import CheckpointError, Checkpoints, damage
from train.checkpoints.plain import put_together, take_apart, tensor_names
from train.checkpoints.shards import Shards, write_pieces
from train.parallel.pieces import Piece


def write(checkpoints: Checkpoints, step: int, text: str = "text") -> Path:
    folder = checkpoints.unfinished(step)
    folder.mkdir(parents=True)
    files = {name: folder / name for name in ("a.bin", "b.bin")}
    for path in files.values():
        path.write_text(text)
    path = checkpoints.commit(step, {name: facts_of(path) for name, path in files.items()})
    checkpoints.prune()
    return path


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_comes_first_and_the_one_before_it_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.usable() == []
    paths = [write(checkpoints, step) for step in (3, 12, 100)]
    assert checkpoints.usable() == [paths[2], paths[1]]
    assert damage(paths[2]) is None
    assert steps(tmp_path / "checkpoints") == ["latest", "step_00000012", "step_00000100"]


def test_as_many_stay_as_asked_and_those_to_keep(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_every=4, keep_last=1)
    for step in range(2, 11, 2):
        write(checkpoints, step)
    assert steps(tmp_path) == ["latest", "step_00000004", "step_00000008", "step_00000010"]


def test_what_is_not_committed_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = write(checkpoints, 1)
    checkpoints.unfinished(2).mkdir()
    (tmp_path / ".latest.unfinished").write_text("half")
    assert checkpoints.usable() == [path]
    checkpoints.clean()
    assert steps(tmp_path) == ["latest", "step_00000001"]


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1, "old")
    path = write(checkpoints, 1, "new")
    assert (path / "a.bin").read_text() == "new" and damage(path) is None


def test_going_back_means_the_pointer_counts_and_not_the_number(tmp_path: Path) -> None:
    """What is newer than `latest` says was given up, or is of a run that was killed in between."""
    checkpoints = Checkpoints(tmp_path, keep_last=3)
    paths = [write(checkpoints, step) for step in (1, 2, 3)]
    write_whole(tmp_path / "latest", "step_00000002")
    assert checkpoints.usable() == [paths[1], paths[0]]
    write_whole(tmp_path / "latest", "step_00000009")
    assert checkpoints.usable() == [checkpoints.path(9), *paths[::-1]], "named, but gone: to be told of"
    write_whole(tmp_path / "latest", "nonsense")
    assert checkpoints.usable() == paths[::-1]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: (path / "b.bin").write_text("tixt"), r"b\.bin: damaged \(its checksum differs"),
        (lambda path: (path / "b.bin").write_text("tex"), r"b\.bin: damaged \(expected 4 bytes, found 3"),
        (lambda path: (path / "b.bin").unlink(), r"b\.bin: missing"),
        (lambda path: (path / "manifest.json").write_text("{"), r"manifest\.json: cannot be read"),
        (lambda path: (path / "manifest.json").write_text("[]"), r"manifest\.json: cannot be read"),
        (lambda path: (path / "manifest.json").unlink(), r"manifest\.json: cannot be read"),
    ],
)
def test_damage_is_named(tmp_path: Path, harm, message: str) -> None:
    path = write(Checkpoints(tmp_path), 1)
    harm(path)
    (problem,) = filter(None, {damage(path), *(damage(path, rank, 3) for rank in range(3))})
    pytest.raises(CheckpointError, raise_, problem).match(message)
    assert damage(tmp_path / "step_00000002") == f"{tmp_path / 'step_00000002'}: not there"


def test_a_file_that_the_disk_does_not_give_back_is_damage(tmp_path: Path, monkeypatch) -> None:
    path = write(Checkpoints(tmp_path), 1)

    def fails(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("train.checkpoints.folders.facts_of", fails)
    assert (damage(path) or "").startswith(f"{path / 'a.bin'}: cannot be read ([Errno 5] Input/output error")


def raise_(problem: str) -> None:
    raise CheckpointError(problem)


def test_nested_state_comes_back_from_plain_data_and_tensors() -> None:
    state = {
        "a": [1, (2.5, None)],
        "b": {"x/y": torch.arange(3)},
        "c": torch.tensor(7),
        "d": "text",
        "e": True,
    }
    tensors: dict[str, torch.Tensor] = {}
    plain = take_apart(state, "recipe", tensors)
    assert tensor_names(plain) == list(tensors) == ["recipe/b/x/y", "recipe/c"]
    back = put_together(plain, tensors)
    assert back["a"] == [1, [2.5, None]] and torch.equal(back["b"]["x/y"], torch.arange(3))
    assert back["d"] == "text" and back["e"] is True
    with pytest.raises(TypeError, match="recipe/a: state of type set cannot be saved"):
        take_apart({"a": {1}}, "recipe", {})
    with pytest.raises(TypeError, match="recipe: state with the key 1"):
        take_apart({1: 2}, "recipe", {})


def test_pieces_are_read_by_torchs_own_reader_and_by_ours(tmp_path: Path) -> None:
    whole, scalar = torch.randn(5, 3), torch.tensor(2.0)
    bits = torch.arange(6, dtype=torch.uint8)
    write_pieces(
        tmp_path / "rank_00000.safetensors", {"a/b": Piece(whole[:2], (0, 0)), "s": Piece(scalar, ())}
    )
    write_pieces(
        tmp_path / "rank_00001.safetensors", {"a/b": Piece(whole[2:], (2, 0)), "u": Piece(bits, (0,))}
    )
    shards = Shards(tmp_path)
    assert torch.equal(shards.below("a/")["b"].read(), whole) and torch.equal(shards.whole("u"), bits)
    targets = {"a/b": torch.zeros(5, 3), "s": torch.zeros(())}
    dcp.load(targets, storage_reader=dcp.HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert torch.equal(targets["a/b"], whole) and targets["s"] == 2
    with pytest.raises(CheckpointError, match="no tensor c"):
        shards.whole("c")


def test_a_tensor_that_is_not_all_there_is_refused(tmp_path: Path) -> None:
    write_pieces(tmp_path / "rank_00001.safetensors", {"a": Piece(torch.zeros(3, 2), (2, 0))})
    with pytest.raises(CheckpointError, match="a: pieces of it are missing"):
        Shards(tmp_path)
    (tmp_path / "rank_00000.safetensors").write_bytes(b"no header")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Shards(tmp_path)
