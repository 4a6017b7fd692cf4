"""Commands that users copy from the guides run: each fence below `<!-- runs -->`, in its page's order."""

from pathlib import Path

import pytest

from tests.guides.conftest import Workspace, python_command, run, run_page
from tests.guides.pages import DOCS, PAGES, ROOT, Block, blocks

README = ROOT / "README.md"  # has a file of tests to itself, which may take its time beside this one
RUNNABLE = [page for page in PAGES if page != README and any(block.runs for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_marked_runs(page: Path, workspace: Workspace) -> None:
    of_readme = {block.text for block in blocks(README) if block.runs and block.language == "python"}
    run_page(page, workspace("demo", "tiny"), of_readme)


@pytest.mark.parametrize("name", ["start.md", "your-pictures.md", "finetune.md", "lora.md", "controlnet.md"])
def test_what_users_copy_first_is_marked(name: str) -> None:
    assert DOCS / name in RUNNABLE


def test_a_failing_line_stops_a_block_and_is_noticed(tmp_path: Path) -> None:
    block = Block(tmp_path, 1, "bash", "false\ntouch after\n", True)
    assert run(block.command(), tmp_path).returncode != 0 and not (tmp_path / "after").exists()
    piped = Block(tmp_path, 1, "", "false | true\n", True)
    assert run(piped.command(), tmp_path).returncode != 0


def test_blocks_of_python_share_a_process_and_no_names(tmp_path: Path) -> None:
    made, asked = (
        Block(ROOT / "page.md", line, "python", text, True) for line, text in ((3, "a = 1"), (9, "print(a)"))
    )
    done = run(python_command([made, asked]), tmp_path)
    assert done.returncode == 1 and 'File "page.md:9"' in done.stderr and "NameError" in done.stderr
