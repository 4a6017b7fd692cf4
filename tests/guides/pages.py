"""The guides as tests see them: pages, headings, links, fenced blocks and the commands in them.

A fence of shell or Python with the line `<!-- runs -->` directly above it is run, see test_guides_run.py.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
MARK = "<!-- runs -->"
SHELL = {"", "bash", "sh", "shell"}
FENCE = re.compile(r"^( *)(`{3,})(.*)$")
HEADING = re.compile(r"^#{1,6} (.+?)\s*#*$")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*(<[^>]*>|[^)\s]+)[^)]*\)")
CODE = re.compile(r"(`+)(.+?)\1")
STARTS = ("python -m ", "torchrun ", "sbatch ", "srun ", "make ")


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its first line, from 1. runs: whether the mark stands above it."""

    page: Path
    line: int
    language: str
    text: str
    runs: bool

    def command(self) -> list[str]:
        """A shell that stops at the first failure."""
        return ["bash", "-e", "-o", "pipefail", "-c", self.text]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order. ValueError for a mark without a fence that can run."""
    found, lines, start = [], page.read_text(encoding="utf-8").splitlines(), None
    fence, marked = None, False
    for number, line in enumerate(lines):
        match = FENCE.match(line)
        if fence is None and match:
            fence, start, marked = match, number, number > 0 and lines[number - 1].strip() == MARK
        elif fence is not None and match and match[2] == fence[2] and not match[3].strip():
            language = (fence[3].split() or [""])[0]
            text = "\n".join(lines[start + 1 : number]) + "\n"
            found.append(Block(page, start + 2, language, text, marked))
            if marked and language not in SHELL | {"python"}:
                raise ValueError(f"{found[-1]}: marked to run, but in {language!r}")
            fence = None
    if sum(block.runs for block in found) != sum(line.strip() == MARK for line in lines):
        raise ValueError(f"{page}: {MARK} with no fence directly below it")
    return found


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page outside its fenced blocks, with their numbers from 1."""
    fence = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        match = FENCE.match(line)
        if fence is None and not match:
            yield number, line
        elif fence is None:
            fence = match
        elif match and match[2] == fence[2] and not match[3].strip():
            fence = None


def links(page: Path) -> list[tuple[int, str]]:
    """The targets of all links and pictures of a page, with their lines; not of what is shown as code."""
    return [
        (number, match[1].strip("<>"))
        for number, line in prose(page)
        for match in LINK.finditer(CODE.sub(lambda code: "x" * len(code[0]), line))
    ]


def commands(page: Path) -> list[tuple[int, str]]:
    """The shell commands that a page shows and no test runs, in one line each.

    They stand in fences, indented by four, or in running text.
    Of fences without a language, which may hold anything, those lines that begin as commands of ours do.
    """
    found = []
    for block in blocks(page):
        if block.language in SHELL and not block.runs:
            shown = [(block.line + offset, text) for offset, text in joined(block.text)]
            found += [(line, text) for line, text in shown if block.language or text.startswith(STARTS)]
    for number, line in prose(page):
        if line.startswith("    ") and line.strip().startswith(STARTS):
            found.append((number, line.strip()))
        else:
            codes = (match[2].strip() for match in CODE.finditer(line))
            found += [(number, code.replace(r"\|", "|")) for code in codes if code.startswith(STARTS)]
    return found


def joined(text: str) -> Iterator[tuple[int, str]]:
    """The commands of a shell block, each in one line, without comments and the text of files (<<END)."""
    whole, first, end = "", 0, None
    for offset, line in enumerate(text.splitlines()):
        if end is not None:
            end = None if line.strip() == end else end
            continue
        first = first if whole else offset
        whole += line.strip()
        if whole.endswith("\\"):
            whole = whole[:-1]
        else:
            if whole and not whole.startswith("#"):
                yield first, whole
            if here := re.search(r"<<-?\s*['\"]?(\w+)", whole):
                end = here[1]
            whole = ""


def words(command: str) -> list[str]:
    """The words of a command up to a comment, pipe or redirection, as the shell would hand them over."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;>")
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[str] = []
    for word in lexer:
        if word.startswith("#") or set(word) <= set("|&;>"):
            break
        found.append(word)
    return found


def headings(page: Path) -> list[str]:
    """The headings of a page, as they are written."""
    return [match[1] for _, line in prose(page) if (match := HEADING.match(line))]


def anchors(page: Path) -> set[str]:
    """The anchors that exist on a code host and in the built pages alike: headings, ids written as HTML."""
    by_host = slugs(page, lambda text: text.replace(" ", "-"), "-{}")
    by_mkdocs = slugs(page, lambda text: re.sub(r"[-\s]+", "-", text), "_{}")
    ids = {match for _, line in prose(page) for match in re.findall(r'<a id="([^"]+)"', line)}
    return (by_host & by_mkdocs) | ids


def slugs(page: Path, spaced, again: str) -> set[str]:
    found: set[str] = set()
    for heading in headings(page):
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = name = spaced(re.sub(r"[^\w\s-]", "", text).strip().lower())
        count = 0
        while slug in found:
            count += 1
            slug = name + again.format(count)
        found.add(slug)
    return found
