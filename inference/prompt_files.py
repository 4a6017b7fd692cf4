"""Files of prompts: text, CSV, TSV (PartiPrompts is one) and JSONL."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.schema import one_line

PROMPT = "prompt"  # the column (in capitals, too) of a table, and the key of a JSON object
MOST_BYTES = 256 * 2**20  # of a file; it is read whole


@dataclass(frozen=True)
class PromptLine:
    """A prompt and what its line says besides.

    line: where it begins in the file, from 1. fields: the other columns of a table (texts, those left empty
    not among them), or the other entries of a JSON object, as they are. problem: why the line cannot be used;
    prompt is empty then.
    """

    line: int
    prompt: str
    fields: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


def read_prompt_file(path: str | Path, strict: bool = True) -> list[PromptLine]:
    """The prompts of a file, in its order.

    By its ending: .csv and .tsv are tables whose first row names the columns, one of them `prompt`; .jsonl
    has an object on each line; any other is text with one prompt per line. Empty lines are left out. UTF-8,
    with or without a byte order mark.
    strict: a line that cannot be used raises; otherwise it is returned with its problem.
    Raises FileNotFoundError, or ValueError for a file that is no text, or holds no prompt.
    """
    path = Path(path)
    text = _text(path)
    read = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl}.get(path.suffix.lower(), _plain)
    try:
        lines = list(read(text))
    except ValueError as error:  # of the header
        raise ValueError(f"{path}: {error}") from None
    if not lines:
        raise ValueError(f"{path}: holds no prompt")
    for each in lines:
        if strict and each.problem is not None:
            raise ValueError(f"{path}: line {each.line}: {each.problem}")
    return lines


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path}: expected at most {MOST_BYTES} bytes of prompts, found {size}")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _rows(text: str) -> list[str]:
    """The lines of a text, without their ends; other separators that Unicode knows do not end one."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _plain(text: str) -> Iterator[PromptLine]:
    for number, row in enumerate(_rows(text), start=1):
        if row.strip():
            yield PromptLine(number, row.strip())


def _jsonl(text: str) -> Iterator[PromptLine]:
    for number, row in enumerate(_rows(text), start=1):
        if not row.strip():
            continue
        try:
            entries = json.loads(row)
        except (ValueError, RecursionError) as error:
            yield PromptLine(number, "", problem=f"no JSON ({one_line(error)})")
            continue
        if not isinstance(entries, dict):
            yield PromptLine(number, "", problem='expected an object such as {"prompt": "a red circle"}')
            continue
        prompt = entries.pop(PROMPT, "")
        if isinstance(prompt, str):
            yield PromptLine(number, prompt.strip(), entries)
        else:
            yield PromptLine(number, "", problem=f"prompt: expected text, found {one_line(prompt)}")


def _csv(text: str) -> Iterator[PromptLine]:
    reader = csv.reader(io.StringIO(text, newline=""))
    rows, begins = [], 1
    try:
        for cells in reader:
            rows.append((begins, cells))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {begins}: no CSV ({error})") from None
    yield from _table(rows)


def _tsv(text: str) -> Iterator[PromptLine]:
    """Quotes are part of a prompt, as in PartiPrompts, unless they enclose a cell as spreadsheets do."""
    rows = enumerate(_rows(text), start=1)
    yield from _table((number, [_unquoted(cell) for cell in row.split("\t")]) for number, row in rows)


def _unquoted(cell: str) -> str:
    inner = cell[1:-1].replace('""', "")
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner
    return cell[1:-1].replace('""', '"') if quoted else cell


def _table(rows: Iterable[tuple[int, list[str]]]) -> Iterator[PromptLine]:
    """Rows of cells with the lines they begin on; the first that is not empty names the columns."""
    columns: list[str] = []
    for number, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = _columns(cells)
            continue
        if len(cells) > len(columns):
            problem = f"{len(cells)} cells, but {len(columns)} columns ({', '.join(columns)})"
            yield PromptLine(number, "", problem=problem)
            continue
        row = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if cell.strip()}
        yield PromptLine(number, row.pop(PROMPT, ""), row)


def _columns(cells: list[str]) -> list[str]:
    """Names of the columns; `prompt` is found in any case."""
    names = [cell.strip() for cell in cells]
    names = [name.lower() if name.lower() == PROMPT else name for name in names]
    if PROMPT not in names:
        raise ValueError(f"no column {PROMPT!r}; found {', '.join(names)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the column {twice[0]!r} stands there twice")
    return names
