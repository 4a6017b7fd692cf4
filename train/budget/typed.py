"""Which settings somebody typed, and so wants as they are."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

NOT_SETTINGS = ("experiment", "debug", "local", "memory")


def typed_keys(overrides: Iterable[str], configs: Path) -> frozenset[str]:
    """Dotted keys of the command line's overrides; of a group's option, those that its file sets itself.

    overrides: as Hydra takes them. configs: the folder of the groups.
    """
    found: set[str] = set()
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        key = key.partition("@")[0]
        if key in NOT_SETTINGS:
            continue
        option = configs / key / f"{value.strip(chr(39))}.yaml"
        if (configs / key).is_dir() and option.is_file():
            own = yaml.safe_load(option.read_text(encoding="utf-8")) or {}
            found |= {f"{key.replace('/', '.')}.{name}" for name in leaves(own) if name != "defaults"}
        else:
            found.add(key)
            found |= {f"{key}.{name}" for name in leaves(mapping(value))}
    return frozenset(found)


def leaves(entries: Mapping[str, Any]) -> Iterator[str]:
    """Dotted keys of nested settings."""
    for name, value in entries.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{name}.{inner}" for inner in leaves(value))
        else:
            yield str(name)


def mapping(value: str) -> Mapping[str, Any]:
    """What was typed for a whole group of settings, such as {lr: 1}; empty for other values."""
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, Mapping) else {}
