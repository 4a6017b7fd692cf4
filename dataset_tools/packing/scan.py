"""What a folder of pictures holds: the pictures with their captions, and why the other files are left out."""

import json
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dataset_tools.images import SUFFIXES
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.packing.captions import (
    TABLE_SUFFIXES,
    Table,
    find_tables,
    name_key,
    read_table,
    read_text_caption,
)
from dataset_tools.records import MAX_JSON_BYTES, check_caption, is_unicode
from dataset_tools.tar_members import MAX_MEMBER_BYTES

UNREAD = (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
"""Endings of pictures as phones and cameras write them, which are not read."""

OWN_FACTS = ("width_px", "height_px", "source")
"""Names in a sample's json that `pack` fills; columns of a table that are called so are left out."""


class Entry(NamedTuple):
    """One picture file to be packed."""

    path: Path
    source: str
    """Name relative to the folder, posix, printable."""
    num_bytes: int
    mtime_ns: int
    caption: str | None
    facts: dict[str, Any]


class LeftOut(NamedTuple):
    """A file that is not packed."""

    file: str
    kind: Kind
    reason: str


class Scan(NamedTuple):
    """All of a folder, in the order of the names."""

    entries: list[Entry]
    left_out: list[LeftOut]


def scan(root: Path, out: Path, captions: Path | None = None) -> Scan:
    """Find the pictures below a folder, following links but no loops, and the captions that belong to them.

    out: a folder to pass over. captions: the table to use instead of those found.
    Raises FileNotFoundError or NotADirectoryError for the folder, ValueError for an unusable table.
    """
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder")
    if not root.is_dir():
        raise NotADirectoryError(f"{root}: expected a folder of pictures, found a file")
    left_out: list[LeftOut] = []
    names = sorted(_walk(root, out, left_out))
    tables = [] if captions else find_tables(names)
    table = _merged_table(root, tables, captions, left_out)
    texts = _text_files(names)
    used = set(tables)
    if captions and captions.resolve().is_relative_to(root.resolve()):
        used.add(captions.resolve().relative_to(root.resolve()).as_posix())
    entries = []
    for name in names:
        if Path(name).suffix.lower() not in SUFFIXES:
            continue
        text = texts.get(posixpath.splitext(name)[0])
        used.update([name] + ([text] if text else []))
        try:
            entries.append(_entry(root, name, text, table))
        except UnusableError as error:
            left_out.append(LeftOut(_printable(name), error.kind, str(error)))
        except OSError as error:
            left_out.append(LeftOut(_printable(name), Kind.UNREACHABLE, str(error)))
    left_out += [LeftOut(_printable(name), *_no_picture(name)) for name in names if name not in used]
    absent = table.rows.keys() - {name_key(name) for name in names}
    left_out += [
        LeftOut(key, Kind.UNREACHABLE, f"{table.rows[key].place} names it; not found") for key in absent
    ]
    return Scan(entries, sorted(left_out))


def _walk(root: Path, out: Path, left_out: list[LeftOut]) -> Iterator[str]:
    """Yield the names of the files below a folder, relative and posix; note what is not entered."""
    seen = {_identity(root)}
    skipped = _identity(out) if out.is_dir() else None

    def unreadable(error: OSError) -> None:
        reason = f"cannot be listed: {error.strerror}"
        left_out.append(LeftOut(_relative(root, error.filename), Kind.UNREACHABLE, reason))

    for folder, subfolders, files in os.walk(root, onerror=unreadable, followlinks=True):
        enter = []
        for name in sorted(subfolders):
            path = Path(folder, name)
            identity = _identity(path)
            if name.startswith("."):
                left_out.append(LeftOut(_relative(root, path), Kind.HIDDEN, "hidden folder"))
            elif identity in seen:
                reason = "link to a folder that is read anyway"
                left_out.append(LeftOut(_relative(root, path), Kind.LINK, reason))
            elif identity != skipped:
                seen.add(identity)
                enter.append(name)
        subfolders[:] = enter
        for name in files:
            if name.startswith("."):
                path = Path(folder, name)
                left_out.append(LeftOut(_relative(root, path), Kind.HIDDEN, "hidden file"))
            else:
                yield Path(folder, name).relative_to(root).as_posix()


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _relative(root: Path, path: str | Path) -> str:
    return _printable(Path(path).relative_to(root).as_posix())


def _printable(name: str) -> str:
    """Make text of a file name, which may hold bytes that are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _merged_table(root: Path, tables: list[str], captions: Path | None, left_out: list[LeftOut]) -> Table:
    """Read the caption tables into one."""
    sources = [(root / name, posixpath.dirname(name)) for name in tables]
    if captions:
        if not captions.is_file():
            raise FileNotFoundError(f"--captions {captions}: no such file")
        if captions.suffix.lower() not in TABLE_SUFFIXES:
            raise ValueError(
                f"--captions {captions}: expected a name ending in {' or '.join(TABLE_SUFFIXES)}"
            )
        sources = [(captions, "")]
    merged = Table({}, [])
    for path, folder in sources:
        rows, repeated = read_table(path, folder)
        merged.rows.update(rows)
        left_out += [LeftOut(key, Kind.REPEATED_KEY, reason) for key, reason in repeated]
    return merged


def _text_files(names: list[str]) -> dict[str, str]:
    """Return the caption file of each name without ending; the first when .txt and .TXT are both there."""
    texts: dict[str, str] = {}
    for name in names:
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() == ".txt":
            texts.setdefault(stem, name)
    return texts


def _entry(root: Path, name: str, text: str | None, table: Table) -> Entry:
    """Describe a picture file; its text file goes before the table. Raises OSError or UnusableError."""
    path = root / name
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UnusableError(Kind.LINK, "link to nothing") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnusableError(Kind.LINK, "no regular file")
    if status.st_size > MAX_MEMBER_BYTES:
        reason = f"{status.st_size} bytes are more than the {MAX_MEMBER_BYTES} of a shard's member"
        raise UnusableError(Kind.OVERSIZED, reason)
    row = table.rows.get(name_key(name))
    caption = read_text_caption(root / text) if text else row.caption if row else None
    if row and not text:
        check_caption(row.caption or "", row.place)
    facts = {key: value for key, value in row.facts.items() if key not in OWN_FACTS} if row else {}
    if row:
        _check_facts(facts, row.place)
    return Entry(path, _printable(name), status.st_size, status.st_mtime_ns, caption, facts)


def _check_facts(facts: dict[str, Any], place: str) -> None:
    """Raise UnusableError for what training would not read from a sample's json. place: of the facts."""
    try:
        text = json.dumps(facts, ensure_ascii=False, allow_nan=False)
    except RecursionError as error:
        raise UnusableError(Kind.NESTED, f"{place} is nested too deeply") from error
    except ValueError as error:  # the table reads NaN as no value, but knows no bounds
        raise UnusableError(Kind.NOT_FINITE, f"{place} holds a number beyond all bounds") from error
    if not is_unicode(text):
        raise UnusableError(Kind.ENCODING, f"{place} holds half characters (lone surrogates)")
    if len(text.encode()) > MAX_JSON_BYTES // 2:  # the name of the source comes on top
        raise UnusableError(Kind.HUGE_JSON, f"the columns of {place} are too long for a sample's json")


def _no_picture(name: str) -> tuple[Kind, str]:
    """Say why a file that is no picture and belongs to none is left out."""
    suffix = Path(name).suffix.lower()
    if suffix == ".txt":
        return Kind.NO_PICTURE, "text without a picture of its name"
    if suffix in (".eps", ".ps"):
        return Kind.NOT_PICTURE, "PostScript is a program, and is not run"
    if suffix in UNREAD:
        return Kind.NOT_PICTURE, f"{suffix} is a format that is not read; convert it to JPEG or PNG first"
    return Kind.NOT_PICTURE, f"no picture that can be read (ending {suffix or 'missing'})"
