"""Command lines of KEY=VALUE whose settings are one dataclass; Hydra reads the trees of configs/ instead."""

import types
from collections.abc import Sequence
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from modules.schema import ConfigError, from_plain

T = TypeVar("T")


def settings_from(kind: type[T], arguments: Sequence[str], positional: Sequence[str] = ()) -> T:
    """The settings that a command line gives: `run=outputs/demo port=7860 sizes=[512,768]` -> kind(...).

    Values are YAML, but what a text is asked for stays as it was typed. positional: names of the settings
    that arguments without a key are for, in order. Raises ConfigError for what is no setting, given twice, or
    refused by `from_plain`.
    """
    hints, left, plain = get_type_hints(kind), list(positional), dict[str, Any]()
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if not sign or not key.isidentifier():
            if not left:
                raise ConfigError(f"{argument!r}: no setting; expected KEY=VALUE")
            key, value = left[0], argument
        if key in plain:
            raise ConfigError(f"{key}: given twice")
        left = [name for name in left if name != key]
        plain[key] = _value(hints.get(key, str), value, key)
    return from_plain(kind, plain)


def _value(hint: Any, text: str, key: str) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if str in options and not (text == "null" and type(None) in options):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{key}: cannot be read: {text!r}") from None
