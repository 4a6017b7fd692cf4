"""No dead link in the guides: files and anchors are there, on a code host and in the built pages alike."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.guides.pages import DOCS, PAGES, ROOT, anchors, blocks, links


def problem(page: Path, target: str) -> str | None:
    """What is wrong with a link, or None."""
    if re.match(r"[a-z][a-z+.-]*:", target):
        parts = urlsplit(target)
        sound = parts.scheme in ("http", "https") and re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc)
        return None if sound or parts.hostname in ("localhost", "127.0.0.1") else "not an address"
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    if not there.exists():
        return "no such file"
    if not there.is_relative_to(ROOT):
        return "outside the repository"
    if anchor and anchor not in anchors(there):
        return f"no such heading; found {', '.join(sorted(anchors(there)))}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    found = [
        f"{page.name}:{line}: {target}: {why}"
        for line, target in links(page)
        if (why := problem(page, target))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nothing.md", "no such file"),
        ("scale.md#nothing", "no such heading"),
        ("#nothing", "no such heading"),
        ("../../elsewhere", "no such file"),
        ("../..", "outside the repository"),
        ("../README.md", None),
        ("https:/nowhere", "not an address"),
        ("scale.md#memory-of-a-gpu-8-pictures-each", None),
        ("https://example.org/a", None),
    ],
)
def test_a_dead_link_is_noticed(target: str, expected: str | None) -> None:
    why = problem(DOCS / "memory.md", target)
    assert (why is None) if expected is None else (why is not None and expected in why)


def test_blocks_links_and_marks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A, `b`: c\n[x](a.md) `[no](b.md)`\n\n<!-- runs -->\n```bash\n[no](c.md)\n```\n![p [q]](d.png)\n"
    )
    assert [target for _, target in links(page)] == ["a.md", "d.png"]
    assert anchors(page) == {"a-b-c"}
    assert [(block.language, block.line, block.runs) for block in blocks(page)] == [("bash", 6, True)]
    page.write_text("<!-- runs -->\n\n```bash\ntrue\n```\n")
    with pytest.raises(ValueError, match="with no fence directly below"):
        blocks(page)
