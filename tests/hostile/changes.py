"""What chance does to bytes and to plain data."""

import random
from typing import Any

VALUES = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    1.5,
    1e308,
    "",
    "x",
    "../x",
    [],
    [[]],
    {},
    {"a": {}},
    "\0",
    "F8_E4M3",
)


def damage(rng: random.Random, data: bytearray) -> None:
    """Bytes flipped near the start or anywhere, cut off, doubled."""
    for _ in range(rng.randrange(1, 20)):
        if not data:
            return
        at = rng.randrange(min(len(data), rng.choice((16, 400, len(data)))))
        kind = rng.randrange(6)
        if kind < 4:
            data[at] = rng.randrange(256)
        elif kind == 4:
            del data[at:]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 100)]


def with_change(rng: random.Random, plain: Any) -> Any:
    """Plain data with one value, somewhere in it, replaced, lost or put under another name."""
    if isinstance(plain, dict) and plain and rng.random() < 0.9:
        key = rng.choice(sorted(plain))
        if rng.random() < 0.1:
            return {name: value for name, value in plain.items() if name != key}
        if rng.random() < 0.1:
            return {
                (str(rng.choice(VALUES)) if name == key else name): value for name, value in plain.items()
            }
        return plain | {key: with_change(rng, plain[key])}
    if isinstance(plain, list) and plain and rng.random() < 0.8:
        at = rng.randrange(len(plain))
        return [with_change(rng, item) if n == at else item for n, item in enumerate(plain)]
    return rng.choice(VALUES)
