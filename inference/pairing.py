"""From lists of prompts, seeds and pictures to one request for each picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from inference.settings import Request

OWN = ("image", "mask", "image_prompt")  # settings of which a list is one for each picture


def pair_up(
    prompts: str | Sequence[str], seeds: int | Sequence[int], settings: Mapping[str, Any]
) -> list[Request]:
    """Request i has prompts[i] and seeds[i], and item i of the settings that are lists for each picture.

    One prompt or seed, or a list of one, serves all. Raises ValueError when numbers differ.
    """
    lists: dict[str, list[Any]] = {
        "prompt": [prompts] if isinstance(prompts, str) else list(prompts),
        "seed": [seeds] if isinstance(seeds, int) else list(seeds),
        **{name: list(value) for name, value in settings.items() if _is_for_each(name, value)},
    }
    number = max(map(len, lists.values()))
    for name, values in lists.items():
        if len(values) not in (1, number):
            raise ValueError(f"{name}: {len(values)} for {number} pictures; expected one, or one for each")
    shared = {name: value for name, value in settings.items() if name not in lists}
    rows = [{name: values[i % len(values)] for name, values in lists.items()} for i in range(number)]
    return [Request(**row, **shared) for row in rows]


def _is_for_each(name: str, value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return name in OWN or (name == "controls" and bool(value) and isinstance(value[0], list | tuple))
