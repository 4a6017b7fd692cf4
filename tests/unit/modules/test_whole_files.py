"""A file has its name only when it is whole, and whoever writes it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modules.whole_files import whole_file, write_whole


def test_a_file_and_its_folder_are_made_and_text_is_the_same_on_all_systems(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "folder" / "a", "ä\n")
    assert (tmp_path / "new" / "folder" / "a").read_bytes() == "ä\n".encode()
    write_whole(tmp_path / "new" / "folder" / "a", b"\xff")
    assert (tmp_path / "new" / "folder" / "a").read_bytes() == b"\xff"


def test_many_may_write_a_whole_file_at_once(tmp_path: Path) -> None:
    texts = [str(n) * 10_000 for n in range(8)]
    with ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(lambda text: [write_whole(tmp_path / "a", text) for _ in range(20)], texts))
    assert (tmp_path / "a").read_text() in texts
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_file_has_its_name_when_it_is_made_and_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for alone in (False, True):
        write_whole(path, "old")
        with pytest.raises(KeyError), whole_file(path, alone=alone) as file:
            file.write(b"new")
            raise KeyError
        assert path.read_text() == "old"
        with whole_file(path, alone=alone) as file:
            file.write(b"new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "a", []

    def fsync(descriptor: int) -> None:
        assert not path.exists()
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, b"content")
    assert synced == [len(b"content")]


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.tmp").write_bytes(b"much longer than it will be")
    write_whole(tmp_path / "a", "b", alone=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "b"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
