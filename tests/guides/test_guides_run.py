"""The commands that users copy from the guides run: every fence below `<!-- runs -->`, in the order of its page."""

from pathlib import Path

import pytest

from tests.guides.conftest import Workspace, run
from tests.guides.pages import DOCS, PAGES, ROOT, Block, blocks

RUNNABLE = [page for page in PAGES if any(block.runs for block in blocks(page))]
# The README trains outputs/tiny itself.
OUTPUTS = {ROOT / "README.md": ["demo"]}


def command(block: Block) -> list[str]:
    """What runs a block: a shell that stops at the first failure, or Python."""
    if block.language == "python":
        return ["python", "-c", block.text]
    return ["bash", "-e", "-o", "pipefail", "-c", block.text]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_marked_runs(page: Path, workspace: Workspace) -> None:
    folder = workspace(*OUTPUTS.get(page, ["demo", "tiny"]))
    for block in blocks(page):
        if block.runs:
            done = run(command(block), folder)
            assert done.returncode == 0, f"{block}\n{block.text}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("name", ["../README.md", "start.md", "your-pictures.md", "finetune.md", "lora.md"])
def test_what_users_copy_first_is_marked(name: str) -> None:
    assert (DOCS / name).resolve() in RUNNABLE


def test_a_failing_line_stops_a_block_and_is_noticed(tmp_path: Path) -> None:
    block = Block(tmp_path, 1, "bash", "false\ntouch after\n", True)
    assert run(command(block), tmp_path).returncode != 0 and not (tmp_path / "after").exists()
    piped = Block(tmp_path, 1, "", "false | true\n", True)
    assert run(command(piped), tmp_path).returncode != 0
