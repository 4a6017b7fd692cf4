"""Plain data (YAML, command line, metadata) to dataclasses, with one clear line for every mistake."""

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Make a dataclass from a mapping. where: the dotted key of the mapping, with a dot at its end.

    Raises ValueError, naming the key in full, for an unknown key (with the nearest valid one), for a wrong
    type and for a value that the dataclass itself refuses.
    """
    hints = get_type_hints(kind)
    known = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    entries = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(unknown_key(f"{where}{key}", [where + name for name in known]))
        hint = hints[key]
        if is_dataclass(hint) and isinstance(value, Mapping):
            value = from_dict(hint, value, f"{where}{key}.")  # type: ignore[arg-type]
        if not fits(value, hint):
            raise ValueError(f"{where}{key}: expected {describe(hint)}; found {value!r}")
        entries[key] = value
    try:
        return kind(**entries)
    except ValueError as error:  # from the dataclass's own checks, which do not know where they are
        raise ValueError(f"{where}{error}") from None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """One line about a key that nobody knows, with the nearest that somebody does."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"{key}: no such setting; {hint}"


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of the type; a pair may be any list, its length is the dataclass's affair."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, option) for option in get_args(hint))
    if get_origin(hint) in (list, tuple):
        return isinstance(value, (list, tuple)) and all(fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def describe(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(hint))
    if get_origin(hint) in (list, tuple):
        return f"a list ({describe(get_args(hint)[0])})"
    return KINDS.get(hint, "a group of settings")
