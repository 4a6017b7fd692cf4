"""What every network has in common: its config as plain data, and checks of what it is given."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class Network(nn.Module):
    """Base of the networks that are trained, saved and loaded by name.

    `config` holds the constructor's arguments as plain data (numbers, strings, lists, dicts), so that
    `type(network)(**network.config)` is a network of the same structure. forward_methods: others than
    `forward` that compute with the weights; hooks of a call (which gather shards) have to know of them.
    """

    config: dict[str, Any]
    forward_methods: tuple[str, ...] = ()

    def init_weights(self) -> None:
        """Give every parameter and buffer its initial value (also after `to_empty`)."""
        raise NotImplementedError

    def shard_units(self) -> list[nn.Module]:
        """The blocks that sharding, compilation and activation checkpointing work on."""
        raise NotImplementedError


def reset_all(module: nn.Module) -> None:
    """Call every `reset_parameters` there is in a module."""
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()


def keeps_config(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate a network's `__init__`: its arguments, defaults included, become `self.config`."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self: Network, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        init(self, *args, **kwargs)
        self.config = {name: plain(value) for name, value in list(bound.arguments.items())[1:]}

    return wrapper


def plain(value: Any) -> Any:
    """Sequences (also a config library's) as lists and mappings as dicts, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def check_shape(name: str, tensor: Tensor, *expected: int | None) -> None:
    """Raise ValueError unless `tensor` has the expected shape (None: any size)."""
    found = tuple(tensor.shape)
    if len(found) == len(expected) and all(e in (None, f) for e, f in zip(expected, found, strict=True)):
        return
    wanted = ", ".join("any" if size is None else str(size) for size in expected)
    raise ValueError(f"{name}: expected shape [{wanted}], found {list(found)}")
