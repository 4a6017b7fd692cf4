"""A file has its name only when it is whole, and whoever writes it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modules.whole_files import write_whole


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


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
