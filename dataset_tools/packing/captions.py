"""Captions of a folder of pictures: a text file beside each picture, or tables of file names and captions."""

import codecs
import csv
import json
import math
import posixpath
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.records import MAX_CAPTION_BYTES, check_caption

TABLE_SUFFIXES = (".jsonl", ".csv")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "image")
CAPTION_COLUMNS = ("text", "caption", "prompt")
MAX_LINE_BYTES = 1 << 20
"""Of a .jsonl table."""


class Row(NamedTuple):
    """What a table says about one picture."""

    caption: str | None
    facts: dict[str, Any]
    """The other columns."""
    place: str
    """Table and line, for messages."""


class Table(NamedTuple):
    """The rows of a caption table, by the picture's name as `name_key` writes it."""

    rows: dict[str, Row]
    repeated: list[tuple[str, str]]
    """(picture, reason) of rows left out because an earlier one is about the same picture."""


def name_key(name: str) -> str:
    """Return the form in which names are compared.

    macOS stores accents apart, tables rarely do; tables that Windows wrote have backslashes.
    """
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def read_text_caption(path: Path) -> str:
    """Read a caption from a text file in UTF-8, or UTF-16 with a byte order mark. Raises UnusableError."""
    with path.open("rb") as file:
        data = file.read(MAX_CAPTION_BYTES + 1)
    if len(data) > MAX_CAPTION_BYTES:
        raise UnusableError(Kind.LONG_CAPTION, f"the caption has more than {MAX_CAPTION_BYTES} bytes")
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf_16 else "utf-8-sig").strip()
    except UnicodeDecodeError as error:
        reason = f"the caption {path.name} is not UTF-8 text (byte {error.start})"
        raise UnusableError(Kind.ENCODING, reason) from error
    check_caption(text, f"the caption {path.name}")  # UTF-16 may be longer as UTF-8
    return text


def find_tables(names: list[str]) -> list[str]:
    """Choose the caption tables among the files of a folder (relative names, posix).

    That is every metadata.jsonl or metadata.csv, in any subfolder; failing these, the only .jsonl or .csv at
    the top. Raises ValueError when the choice is not clear.
    """
    tables = [name for name in names if posixpath.splitext(name)[1].lower() in TABLE_SUFFIXES]
    metadata = [name for name in tables if posixpath.splitext(posixpath.basename(name))[0] == "metadata"]
    folders = [posixpath.dirname(name) for name in metadata]
    doubled = [name for name in metadata if folders.count(posixpath.dirname(name)) > 1]
    top = [name for name in tables if "/" not in name]
    unclear = doubled or ([] if metadata or len(top) < 2 else top)
    if unclear:
        raise ValueError(f"more than one caption table ({', '.join(unclear)}); name one with --captions")
    return metadata or top


def read_table(path: Path, folder: str) -> Table:
    """Read a .csv or .jsonl table. folder: what its file names are relative to, from the top (posix).

    Raises ValueError naming the line where it cannot be read, or the columns when none names the picture.
    """
    table = Table({}, [])
    for line, values in _read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_csv(path):
        place = f"{path.name} line {line}"
        row = dict(values)
        name = _take(row, FILE_COLUMNS)
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"{path} line {line}: expected the picture's name in a column {FILE_COLUMNS[0]}, "
                f"found the columns {', '.join(map(str, values)) or 'none'}"
            )
        caption = _take(row, CAPTION_COLUMNS)
        if not isinstance(caption, str | None):
            raise ValueError(f"{path} line {line}: expected text as caption, found {caption!r}")
        key = posixpath.normpath(name_key(posixpath.join(folder, name)))
        if key in table.rows:
            table.repeated.append((key, f"{place} repeats {table.rows[key].place}"))
        else:
            table.rows[key] = Row(None if caption is None else caption.strip(), row, place)
    return table


def _take(row: dict[str, Any], columns: tuple[str, ...]) -> Any:
    """Remove and return the first of these columns that the row has; None when it has none."""
    found = next((column for column in columns if column in row), None)
    return row.pop(found) if found else None


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"{path} line {number}: longer than {MAX_LINE_BYTES} bytes")
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig"), parse_constant=lambda _: None)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path} line {number}: not JSON: {error}") from error
            if not isinstance(values, dict):
                raise ValueError(f"{path} line {number}: expected an object, found {values!r:.50}")
            yield number, values


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True, skipinitialspace=True)
        try:
            header = reader.fieldnames or ()
            if len(header) == 1 and re.search(r"[;\t]", header[0]):
                raise ValueError(f"{path} line 1: expected columns with commas between, found {header[0]!r}")
            for row in reader:
                if None in row or None in row.values():  # csv's mark for too many or too few fields
                    expected = f"expected {len(header)} fields as in the first line"
                    raise ValueError(f"{path} line {reader.line_num}: {expected}, found another number")
                filled = {column: text for column, text in row.items() if column and text}
                if filled:  # spreadsheets leave rows of commas alone
                    yield reader.line_num, {column: _plain(column, text) for column, text in filled.items()}
        except csv.Error as error:
            raise ValueError(f"{path} after line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _plain(column: str, text: str) -> str | int | float:
    """Make numbers of the numbers in a table of texts, so that filters can compare them."""
    if column in FILE_COLUMNS + CAPTION_COLUMNS:
        return text
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        return int(text)
    if re.fullmatch(r"-?\d+\.\d+([eE][-+]?\d+)?", text) and math.isfinite(float(text)):
        return float(text)
    return text
