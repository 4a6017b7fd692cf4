"""Plain data (YAML, command line, a picture's metadata) to dataclasses; every mistake is one clear line."""

import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
MOST_BITS = 63  # of a whole number
NO_TEXT = re.compile("[\\0\ud800-\udfff]")  # ends a text in C; half a character
MOST_LETTERS = 1000  # of a message: names and values in it may come from a stranger's file
ABSENT = "???"  # how OmegaConf writes a value that the user must give
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
SEVERAL = {int: "whole numbers", float: "numbers"}
SHOWN_DEPTH = 4  # of what is nested in a value


class ConfigError(ValueError):
    """A mistake in the settings: says which key, what was expected, what was found."""


def one_line(problem: object) -> str:
    """A message on one line of bounded length, without characters that a terminal would obey.

    An error of the system about a file begins with the file's name, not with the error's number.
    """
    if isinstance(problem, OSError) and problem.filename is not None and problem.strerror:
        problem = f"{problem.filename}: {problem.strerror}"
    words = " ".join(str(problem)[: 4 * MOST_LETTERS].split())
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in words)
    return shown if len(shown) <= MOST_LETTERS else f"{shown[:MOST_LETTERS]} …"


def shown(value: Any, depth: int = SHOWN_DEPTH) -> str:
    """A value as YAML and the command line write it: null, true, [1, 2], {name: 'text'}."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        within = [f"{key}: {shown(each, depth - 1)}" for key, each in value.items()] if depth else ["…"]
        return f"{{{', '.join(within)}}}"
    if isinstance(value, list | tuple):
        within = [shown(each, depth - 1) for each in value] if depth else ["…"]
        return f"[{', '.join(within)}]"
    return repr(value)


def kind_of(value: Any) -> str:
    """What a value is, in words, without the value itself."""
    if isinstance(value, Mapping):
        return "settings"
    return "a list" if isinstance(value, list | tuple) else KINDS.get(type(value), "something else")


def bounded(default: Any, least: float | None = None, most: float | None = None) -> Any:
    """A dataclass field whose number must lie in [least, most]; in any case a finite one."""
    return field(default=default, metadata={"least": least, "most": most})


def from_plain(kind: type[T], plain: Any, where: str = "") -> T:
    """Build dataclass `kind` from a mapping. `where`: the dotted key of the mapping, for messages.

    A kind with a `shorthand` also takes a text alone, as the entry of that name. Raises ConfigError for an
    unknown key (naming the nearest), a wrong type, a missing or impossible value.
    """
    if isinstance(plain, str) and (shorthand := getattr(kind, "shorthand", None)):
        plain = {shorthand: plain}
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{where}: expected settings ({_keys(kind)}), found {shown(plain)}")
    hints = get_type_hints(kind)
    settable = {f.name: f for f in fields(kind) if f.init}  # type: ignore[arg-type]
    values = {}
    for key, value in plain.items():
        if key not in settable:
            raise ConfigError(f"{join(where, key)}: unknown key; {nearest(str(key), settable)}")
        if value != ABSENT:
            values[key] = convert(hints[key], value, join(where, key))
            _check_bounds(values[key], settable[key].metadata, join(where, key))
    for name, entry in settable.items():
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise ConfigError(f"{join(where, name)}: missing; expected {describe(hints[name])}")
    try:
        return kind(**values)
    except ConfigError:
        raise
    except ValueError as error:  # from the dataclass's own checks, which know its keys but not its place
        begins_with_key = str(error).partition(":")[0] in settable
        message = join(where, error) if begins_with_key or not where else f"{where}: {error}"
        raise ConfigError(message) from error


def convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that `hint` asks for; raises ConfigError when it is something else."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        check_all(value, where)
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if is_dataclass(hint):
        return value if isinstance(value, hint) else from_plain(hint, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(
                f"{where}: found {shown(value)}; {nearest(str(value), [str(a) for a in arguments])}"
            )
        return value
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        return _convert_sequence(hint, value, where)
    if origin in (dict, Mapping) or hint is dict:
        return _convert_mapping(hint, value, where)
    if not isinstance(value, (int, float) if hint is float else hint) or (
        isinstance(value, bool) and hint is not bool
    ):
        raise ConfigError(f"{where}: expected {describe(hint)}, found {shown(value)}")
    check_scalar(value, where)
    return float(value) if hint is float else value


def check_scalar(value: Any, where: str) -> None:
    """Raise ConfigError for a number that is not finite or beyond 64 bits, and for text that is none."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, found {value}")
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise ConfigError(f"{where}: expected a number below 2**{MOST_BITS}, found a larger one")
    if isinstance(value, str) and NO_TEXT.search(value):
        raise ConfigError(f"{where}: expected text, found a character that is none in {value[:80]!r}")


def check_all(value: Any, where: str) -> None:
    """The same for all that there is in plain data."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_all(item, join(where, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_all(item, f"{where}[{i}]")
    else:
        check_scalar(value, where)


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of a message about a wrong name: the valid name that it probably means, or all of them."""
    names = sorted(str(item) for item in valid)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        return f"did you mean '{close[0]}'?"
    return f"expected one of: {', '.join(names) or 'nothing'}"


def join(where: str, key: object) -> str:
    """A dotted key."""
    return f"{where}.{key}" if where else str(key)


def describe(hint: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if is_dataclass(hint):
        return f"settings ({_keys(hint)})"
    if origin is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(map(describe, arguments))}]"
    if origin in (list, tuple, Sequence):
        return f"a list of {SEVERAL.get(arguments[0]) or describe(arguments[0])}" if arguments else "a list"
    if origin in (dict, Mapping) or hint is dict:
        return "settings"
    return KINDS.get(hint, getattr(hint, "__name__", str(hint)))


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    if len(options) == 1:
        return convert(options[0], value, where)
    for option in options:
        try:
            return convert(option, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where}: expected {' or '.join(map(describe, options))}, found {shown(value)}")


def _convert_sequence(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ConfigError(f"{where}: expected {describe(hint)}, found {shown(value)}")
    origin, arguments = get_origin(hint) or hint, get_args(hint) or (Any,)
    if origin is not tuple or arguments[-1] is Ellipsis:
        items = [convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if len(arguments) != len(value):
        raise ConfigError(f"{where}: expected {len(arguments)} values, found {len(value)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(convert(argument, item, f"{where}[{i}]") for i, (argument, item) in enumerate(pairs))


def _convert_mapping(hint: Any, value: Any, where: str) -> dict:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected {describe(hint)}, found {shown(value)}")
    inner = (get_args(hint) or (str, Any))[1]
    return {str(key): convert(inner, item, join(where, key)) for key, item in value.items()}


def _check_bounds(value: Any, limits: Mapping[str, Any], where: str) -> None:
    """Of a number, or of each in a list or mapping."""
    least, most = limits.get("least"), limits.get("most")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_bounds(item, limits, join(where, key))
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_bounds(item, limits, f"{where}[{i}]")
    if not isinstance(value, int | float):
        return
    if least is not None and value < least:
        raise ConfigError(f"{where}: expected at least {least}, found {value}")
    if most is not None and value > most:
        raise ConfigError(f"{where}: expected at most {most}, found {value}")


def _keys(kind: Any) -> str:
    return ", ".join(entry.name for entry in fields(kind))
