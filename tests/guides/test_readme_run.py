"""The README's commands run, in its order, in what looks like a clone after `make demo-adapters`."""

from tests.guides.conftest import Workspace, run_page
from tests.guides.pages import ROOT


def test_what_the_readme_marks_runs(workspace: Workspace) -> None:
    folder = workspace("demo")
    run_page(ROOT / "README.md", folder)
    assert (folder / "outputs" / "tiny" / "stage_c" / "weights" / "stage_c.safetensors").exists()
