"""Runs notebooks as a reader would, in a kernel of their own, with small weights made on the spot.

Each notebook `inference/NAME.ipynb` has a file `test_notebook_NAME.py`, which says what its settings are to
be with small weights:

    def test_runs(run_notebook, small_models, adapters, tmp_path):
        run_notebook("NAME", MODELS={"run": str(small_models)}, OUT=str(tmp_path))

`test_notebooks.py` checks what is committed. With the demo's weights, saving them with their pictures:
`python -m scripts.run_notebooks`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.run_notebooks import FOLDER, execute, read, with_parameters
from tests.adapter_files import write_adapters


@pytest.fixture(scope="session")
def small_models(tiny_runs: Path) -> Path:
    """A cascade of very small, untrained networks for pictures of 32 px: a folder of runs."""
    return tiny_runs


@pytest.fixture(scope="session")
def adapters(tiny_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the adapters that `tests.adapter_files` names, of the cascade above."""
    return write_adapters(tiny_runs, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def run_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Executes a notebook with other values for the names of its settings; returns it with its outputs."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # and not the user's

    def run(name: str, **settings: Any) -> Any:
        notebook = execute(with_parameters(read(FOLDER / f"{name}.ipynb"), settings))
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        assert not [output.text for output in outputs if output.get("name") == "stderr"]
        return notebook

    return run
