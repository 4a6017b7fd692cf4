"""Classes are found by the names of the files that define them."""

from pathlib import Path

import pytest

from modules.by_file import classes_by_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / f"kinds_{tmp_path.name}"  # each test a package that was not loaded before
    made.mkdir()
    (made / "__init__.py").write_text("class Kind: pass")
    (made / "one.py").write_text(f"from {made.name} import Kind\nclass One(Kind): pass\nclass Other: pass")
    (made / "two.py").write_text(f"from {made.name}.one import One\nclass Two(One): pass")
    (made / "none.py").write_text(f"from {made.name}.one import One")
    monkeypatch.syspath_prepend(str(tmp_path))
    return made


def kinds(folder: Path) -> dict[str, type]:
    return classes_by_file(folder.name, [str(folder)], lambda kind: kind.__name__ in ("One", "Two", "Three"))


def test_a_file_is_the_name_of_the_class_that_it_defines_itself(folder: Path) -> None:
    assert {name: kind.__name__ for name, kind in kinds(folder).items()} == {"one": "One", "two": "Two"}


def test_a_file_with_two_says_so(folder: Path) -> None:
    (folder / "three.py").write_text("class One: pass\nclass Three: pass")
    with pytest.raises(
        ValueError, match=r"three.py: expected one class to be called three, found One, Three"
    ):
        kinds(folder)
