"""How much a config may ask for: networks are described by files of strangers, too."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.nn.modules import module as hooks

from modules.schema import ConfigError, check_scalar, join

MOST = 2**20  # of any whole number: channels, vocabularies, counts of blocks
COUNTS = {"levels": 16, "depth": 16, "bottleneck_blocks": 4096, "blocks": 4096, "block_repeat": 64}
# The least of whole numbers that may be smaller than 1.
LEAST = dict.fromkeys(("c_cond", "proj_blocks", "bottleneck_blocks", "blocks"), 0) | {"nhead": -1}
LEAST |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
SHARES = ("dropout", "stochastic_depth", "attention_dropout")


class TooManyParts(ValueError):
    """More parts are being made than a network was to have."""


def check_sizes(keywords: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError, which begins with `where` and the key, for numbers that no network's config has.

    Anything may be in the config: only the numbers in it are looked at, however deep they lie.
    """
    for key, value in keywords.items():
        _check(value, str(key), f"{where}{key}")


def _check(value: Any, key: str, where: str) -> None:
    check_scalar(value, where)
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check(item, str(name), join(where, name))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check(item, key, f"{where}[{i}]")
    elif key in SHARES and isinstance(value, int | float) and not 0 <= value <= 1:
        raise ConfigError(f"{where}: expected a share from 0 to 1, found {value}")
    elif isinstance(value, int) and not isinstance(value, bool) and key not in SHARES:
        least, most = LEAST.get(key, 1), COUNTS.get(key, MOST)
        if not least <= value <= most:
            raise ConfigError(f"{where}: expected {least} to {most}, found {value}")


@contextmanager
def at_most(parts: int, what: str) -> Iterator[None]:
    """Raise TooManyParts, beginning with `what`, once networks of more parameters and buffers are made.

    Within the context, and in this thread.
    """
    thread, made = threading.get_ident(), 0

    def count(module: Any, name: str, part: Any) -> None:
        nonlocal made
        made += part is not None and threading.get_ident() == thread
        if made > parts:
            raise TooManyParts(f"{what}: asks for more than {parts} parameters")

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
