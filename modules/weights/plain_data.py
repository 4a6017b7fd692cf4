"""JSON that strangers wrote: bounded, and plain data whatever it says."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from modules.schema import kind_of

LENGTH_BYTES = 8  # of safetensors, before the head
MOST_BYTES = 16 * 2**20  # of a description; those of the largest networks have less than one


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """The mapping in a text; ValueError, beginning with `where`, when there is none.

    Also for what JSON does not know or leaves open (NaN, a name twice, numbers of thousands of digits), and
    for lists within lists without end.
    """
    try:
        found = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"{where} is not readable: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{where} is not readable: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected a mapping, found {kind_of(found)}")
    return found


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The mapping in a file; errors as in `parse_json`, and when it is far too large for a description.

    FileNotFoundError also for what is no file: to open a pipe would wait for ever.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    check_length(path.stat().st_size, str(path), most_bytes)
    return parse_json(path.read_bytes(), str(path))


def check_length(num_bytes: int, where: str, most_bytes: int = MOST_BYTES) -> None:
    """Raise ValueError for a description longer than any that is meant to be read."""
    if num_bytes > most_bytes:
        raise ValueError(f"{where}: expected a description of at most {most_bytes} bytes, found {num_bytes}")


def head_of(path: Path) -> bytes:
    """The description at the start of a safetensors file; ValueError for one that is far too long."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > path.stat().st_size:
            return b""  # which safetensors will say
        check_length(length, f"{path}: its header")
        return file.read(length)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} is there twice")
        found[name] = value
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
