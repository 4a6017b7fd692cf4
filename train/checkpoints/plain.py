"""Nested state as plain data beside named tensors, and back: no part of it is ever unpickled."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from modules.schema import check_scalar, join

TENSOR = "$tensor"


def take_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` fit for JSON; its tensors go to `tensors`, under names that begin with `name`.

    value: dicts with strings as keys, lists, tuples (which come back as lists), numbers, strings and tensors.
    Raises TypeError for anything else.
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {TENSOR: name}
    if isinstance(value, Mapping):
        if other := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{name}: state with the key {other[0]!r}, which is no string, cannot be saved")
        return {key: take_apart(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [take_apart(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: state of type {type(value).__name__} cannot be saved")


def put_together(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `take_apart` took apart."""
    if isinstance(value, dict):
        if value.keys() == {TENSOR}:
            return tensors[str(value[TENSOR])]
        return {key: put_together(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [put_together(item, tensors) for item in value]
    return value


def tensor_names(value: Any) -> list[str]:
    """The names of the tensors that were taken out of `value`."""
    if isinstance(value, dict):
        if value.keys() == {TENSOR}:
            return [str(value[TENSOR])]
        return [name for item in value.values() for name in tensor_names(item)]
    return [name for item in value for name in tensor_names(item)] if isinstance(value, list) else []


def check_alike(found: Any, expected: Any, where: str) -> None:
    """Raise ValueError, beginning with `where`, unless two states are of the same keys, types and shapes.

    What is in a list is left to the one whose state it is: there may be more or fewer of them.
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or found.keys() != expected.keys():
            keys = list(found) if isinstance(found, Mapping) else type(found).__name__
            raise ValueError(f"{where}: expected {list(expected)}, found {keys}")
        for key, value in expected.items():
            check_alike(found[key], value, join(where, key))
    elif _kind(found) != _kind(expected):
        raise ValueError(f"{where}: expected {_kind(expected)}, found {_kind(found)}")
    elif not isinstance(found, Tensor | list | tuple):
        check_scalar(found, where)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return "list" if isinstance(value, tuple) else type(value).__name__
