"""The facts beside precomputed shards: which networks and settings made them."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dataset_tools.sources import MAX_BESIDE_BYTES, connect, is_remote, read_some
from modules.schema import ConfigError, bounded, from_plain, join, nearest
from modules.weights.tensors import tensor_bytes
from modules.whole_files import write_whole

FACTS_NAME, EMPTY_NAME = "precomputed.json", "empty.safetensors"
PARTS = ("semantic_compressor", "stage_a", "image_encoder", "text_encoder")
SEEN_BY = ("image_size_px", "multiple_px", "aspect_ratios", "inverse_ratios", "random_ratio", "crop", "flip")
"""The settings of `data` that decide what the networks saw of a picture."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Part:
    """What one network made. shape: of its tensor, without height and width; identity: see `identity`."""

    identity: str
    shape: list[int]
    pooled: list[int] = field(default_factory=list)  # of captions' pooled states
    factor: int = bounded(1, 1)  # pixels per latent
    scale: float = bounded(1.0, 1e-3, 1.0)  # what the compressor saw of a picture's size


@dataclass(frozen=True)
class Facts:
    """The content of precomputed.json: all that the tensors depend on but the pictures."""

    networks: dict[str, Part]
    data: dict[str, Any]  # the settings named in SEEN_BY
    captions: list[str]  # fields whose states are there
    seed: int = 0
    versions: int = bounded(1, 1)
    dtype: Literal["bf16", "fp32"] = "bf16"  # of the tensors
    precision: Literal["bf16", "fp32"] = "fp32"  # of the networks
    compressed: bool = False


def caption_shapes(part: Part, caption: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a caption's states. The name is the text's checksum: they are of that text."""
    key = hashlib.sha256(caption.encode("utf-8", "backslashreplace")).hexdigest()[:16]
    return {f"text_encoder.{key}.tokens": tuple(part.shape), f"text_encoder.{key}.pooled": tuple(part.pooled)}


def plain(value: Any) -> Any:
    """A setting as json gives it back; ratios as text, so that 1.5 and "1.5" are one."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else value


def difference(one: Facts, other: Facts) -> str | None:
    """The first fact in which two differ, with its values in both, or None."""
    pairs = flat(asdict(one)), flat(asdict(other))
    keys = (key for key in (*pairs[0], *pairs[1]) if pairs[0].get(key) != pairs[1].get(key))
    return next((f"{key}: {pairs[0].get(key)!r} and {pairs[1].get(key)!r}" for key in keys), None)


def flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, join(where, key)) if isinstance(value, Mapping) else {join(where, key): value}
    return result


def read_facts(folder: str) -> Facts | None:
    """The facts in a folder or at a URL; None where there are none. Raises ConfigError for damaged ones."""
    try:
        data = read_beside(folder, FACTS_NAME)
    except OSError:
        return None
    where = f"{folder}/{FACTS_NAME}"
    try:
        read = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON: {error}") from error
    facts = from_plain(Facts, read, where)
    for name, part in facts.networks.items():
        if name not in PARTS:
            raise ConfigError(f"{where}: networks.{name}: unknown network; {nearest(name, PARTS)}")
        if not part.shape or min(*part.shape, *part.pooled, 1) < 1:
            raise ConfigError(f"{where}: networks.{name}: expected sizes of at least 1, found {part}")
    return facts


def claim(folder: Path, facts: Facts, empty: Mapping[str, Tensor]) -> None:
    """Write the facts and the states of the empty caption into a folder, unless they are there.

    Any number of processes may do so at once. Raises ValueError when it holds something else.
    """
    if (found := read_facts(str(folder))) is not None:
        if unlike := difference(found, facts):
            raise ValueError(
                f"{folder}: holds latents that were made otherwise: {unlike}; name another folder"
            )
        return
    if foreign := sorted(folder.glob("*.tar")):
        raise ValueError(f"{folder} holds {foreign[0].name}, which is not precomputed; name another folder")
    if empty:
        write_whole(folder / EMPTY_NAME, tensor_bytes(empty))
    write_whole(folder / FACTS_NAME, json.dumps(asdict(facts), indent=1) + "\n")


def read_beside(folder: str, name: str) -> bytes:
    """The bytes of a file beside shards. Raises OSError, ConfigError for one that is far too large."""
    data = None
    if not is_remote(folder):
        if (path := Path(folder, name)).is_file():
            with path.open("rb") as file:
                data = read_some(file)
    else:
        file_system, there = connect(f"{folder}/{name}")
        # Every file system of fsspec says "missing" in its own way.
        with suppress(Exception), file_system.open(there, "rb") as file:
            data = read_some(file)
    if data is None:
        raise FileNotFoundError(f"{folder}/{name}: cannot be had")
    if len(data) > MAX_BESIDE_BYTES:
        raise ConfigError(f"{folder}/{name}: expected at most {MAX_BESIDE_BYTES} bytes, found more")
    return data
