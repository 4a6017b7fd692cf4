"""What README and docs say exists, exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDER = ROOT / "configs" / "experiment"
EXPERIMENTS = {str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml")}
MISTAKES = {"tiny/stag_a"}  # shown as such
FOREIGN = {"cog.server.http", "venv"}  # modules of others that documents run


def test_the_readme_names_every_experiment() -> None:
    named = set(re.findall(r"\w+/\w+", (ROOT / "README.md").read_text()))
    assert named >= EXPERIMENTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_experiments_modules_and_links_of_a_document_exist(document: Path) -> None:
    text = document.read_text()
    assert set(re.findall(r"experiment=(\w+/\w+)", text)) <= EXPERIMENTS | MISTAKES
    for module in set(re.findall(r"-m (\w+(?:\.\w+)*)", text)) - FOREIGN:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (document.parent / link).exists(), link
