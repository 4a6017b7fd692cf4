"""Running notebooks with other settings, and what is left out of their outputs."""

from pathlib import Path
from typing import Any

import nbformat.v4 as v4
import pytest
from nbclient.exceptions import CellExecutionError

from scripts import run_notebooks
from scripts.run_notebooks import ROOT, execute, fingerprint, main, read, renew, scrub, with_parameters


def notebook(*sources: str, tag: str = "parameters") -> Any:
    cells = [v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = [tag]
    return v4.new_notebook(cells=cells)


def test_other_values_take_the_place_of_the_settings(tmp_path: Path) -> None:
    made = with_parameters(notebook("A, B = 1, 2", "print(A, B)"), {"B": "two"})
    execute(made, tmp_path)
    assert made.cells[1].outputs[0].text == "1 two\n"


def test_a_setting_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no settings of this notebook: C; there are: .'A'"):
        with_parameters(notebook("A = 1"), {"C": 2})


def test_a_notebook_without_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one cell with the tag 'parameters', found 0"):
        with_parameters(notebook("A = 1", tag="other"), {})


def test_the_kernel_starts_in_the_folder(tmp_path: Path) -> None:
    made = execute(notebook("import os", "print(os.getcwd())"), tmp_path)
    assert Path(made.cells[1].outputs[0].text.strip()) == tmp_path


def test_a_cell_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(notebook("1 / 0"), tmp_path)


def test_paths_of_the_machine_are_left_out(tmp_path: Path) -> None:
    made = notebook(f"print('see {ROOT}/outputs/a.png in {ROOT}')", "1")
    execute(made, tmp_path)
    scrub(made)
    assert made.cells[0].outputs[0].text == "see outputs/a.png in .\n"
    assert made.metadata.executed == fingerprint(made)


def test_a_notebook_is_saved_with_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_notebooks, "ROOT", tmp_path)
    path = tmp_path / "a.ipynb"
    path.write_text(v4.writes(notebook("print(2 + 3)")))
    assert renew(path) == 0
    assert read(path).cells[0].outputs[0].text == "5\n"


def test_a_notebook_that_fails_is_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(v4.writes(notebook("A = 1", "1 / 0\nA = 2")))
    before = path.read_bytes()
    assert renew(path) == 1
    assert path.read_bytes() == before
    expected = "error: a.ipynb: cell 2 (1 / 0): ZeroDivisionError: division by zero\n"
    assert expected in capsys.readouterr().err


def test_a_kernel_that_dies_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when the machine has no memory left."""
    path = tmp_path / "a.ipynb"
    path.write_text(v4.writes(notebook("import os\nos._exit(1)")))
    assert renew(path) == 1
    assert capsys.readouterr().err == "error: a.ipynb: Kernel died\n"


def test_an_unknown_name_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "no notebook 'nonsense'" in capsys.readouterr().err
