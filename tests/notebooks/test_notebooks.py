"""The notebooks as committed: executed, whole, with pictures, small, and nothing of a machine in them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.run_notebooks import FOLDER, ROOT, START, TAG, fingerprint, parameters_cell, read

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_CELLS, MOST_BYTES, FEWEST_PICTURES = 40, 500_000, 3
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|opt|var|mnt|Users|Volumes)/|\b[A-Z]:\\")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code(notebook) for output in cell.outputs]


@every_notebook
def test_begins_with_the_way_to_the_project_and_its_settings(path: Path) -> None:
    cells = code(read(path))
    assert cells[0].source == START
    assert cells[1] is not None and TAG in cells[1].metadata.get("tags", ())
    assert parameters_cell(read(path)).source == cells[1].source


@every_notebook
def test_is_short_and_an_essay(path: Path) -> None:
    cells = read(path).cells
    assert len(cells) <= MOST_CELLS
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert sum(cell.cell_type == "markdown" for cell in cells) >= len(cells) / 3
    assert path.stat().st_size <= MOST_BYTES


@every_notebook
def test_was_executed_from_top_to_bottom_as_it_is(path: Path) -> None:
    notebook = read(path)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert notebook.metadata.get("executed") == fingerprint(notebook), (
        f"its code has changed since: python -m scripts.run_notebooks {path.stem}"
    )
    pictures = [
        output for output in outputs(notebook) if {"image/png", "image/jpeg"} & output.get("data", {}).keys()
    ]
    assert len(pictures) >= FEWEST_PICTURES


@every_notebook
def test_shows_no_error_and_no_warning(path: Path) -> None:
    for output in outputs(read(path)):
        assert output.output_type != "error", output.evalue
        assert output.get("name") != "stderr", output.text


@every_notebook
def test_states_time_and_memory(path: Path) -> None:
    text = "".join(output.get("text", "") for output in outputs(read(path)))
    assert re.search(r"\d s, (GPU )?memory at most [\d,]+ MiB", text)


@every_notebook
def test_has_no_path_of_a_machine(path: Path) -> None:
    for cell in read(path).cells:
        assert not ABSOLUTE.search(cell.source), cell.source
    for output in outputs(read(path)):
        plain = {kind: data for kind, data in output.get("data", {}).items() if kind.startswith("text/")}
        for text in (output.get("text", ""), *plain.values()):
            assert not ABSOLUTE.search(str(text)), text


@every_notebook
def test_is_run_by_a_test(path: Path) -> None:
    assert (Path(__file__).parent / f"test_notebook_{path.stem}.py").is_file()


@pytest.mark.parametrize("folder", (".", "inference"))
def test_the_first_cell_finds_the_project(folder: str) -> None:
    found = "from importlib.util import find_spec\nassert find_spec('inference')"
    script = f"{START}\n{found}\nassert Path('configs/inference.yaml').is_file()"
    subprocess.run([sys.executable, "-P", "-c", script], cwd=ROOT / folder, check=True)
