"""Checkpoints are whole or not there, the newest is found, damage is named, others are pruned."""

from pathlib import Path

import pytest

from train.checkpoint import CheckpointError, Checkpoints, link, verify, write_text


def filled(text: str):
    def fill(folder: Path) -> None:
        (folder / "weights").mkdir()
        (folder / "weights" / "a.bin").write_text(text)

    return fill


def test_the_newest_is_the_one_written_last(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_every=0)
    assert checkpoints.newest() is None
    checkpoints.write(3, filled("three"))
    path = checkpoints.write(12, filled("twelve"))
    assert checkpoints.newest() == path == tmp_path / "checkpoints" / "step_00000012"
    verify(path)
    assert not checkpoints.path(3).exists()


def test_a_write_that_fails_leaves_the_last_one_in_charge(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_every=0)
    path = checkpoints.write(1, filled("one"))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("…")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.write(2, fail)
    assert checkpoints.newest() == path and not checkpoints.path(2).exists()
    checkpoints.write(2, filled("two"))
    assert sorted(item.name for item in checkpoints.path(2).iterdir()) == ["manifest.json", "weights"]


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_every=0)
    checkpoints.write(1, filled("old"))
    path = checkpoints.write(1, filled("new"))
    assert (path / "weights" / "a.bin").read_text() == "new"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "weights" / "a.bin").write_text("flipped"), r"a\.bin: damaged"),
        (lambda path: (path / "weights" / "a.bin").unlink(), r"a\.bin: missing"),
        (lambda path: (path / "manifest.json").write_text("{"), r"manifest\.json: cannot be read"),
        (lambda path: (path / "manifest.json").unlink(), r"manifest\.json: cannot be read"),
    ],
)
def test_damage_is_named_with_what_to_do(tmp_path: Path, damage, message: str) -> None:
    path = Checkpoints(tmp_path, keep_every=0).write(1, filled("fine"))
    damage(path)
    with pytest.raises(CheckpointError, match=f"{message}.*write the name of another checkpoint into"):
        verify(path)


def test_a_pointer_to_nothing_is_an_error_that_lists_what_there_is(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_every=0)
    checkpoints.write(1, filled("one"))
    write_text(tmp_path / "latest", "step_00000009")
    with pytest.raises(CheckpointError, match=r"step_00000009.*found: step_00000001"):
        checkpoints.newest()


def test_a_link_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("new")
    (tmp_path / "target").write_text("old")
    link(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["source", "target"]


def test_where_there_are_no_links_the_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "source").write_text("text")
    link(tmp_path / "source", tmp_path / "folder" / "target")
    assert (tmp_path / "folder" / "target").read_text() == "text"
