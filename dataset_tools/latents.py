"""What `precompute` made of a data set: the facts beside its shards, and how a sample's tensors are read.

A sample of such a shard holds, in place of its picture, a safetensors member: for each version of the picture
(the bucket, crop and flip that one epoch draws) what the networks made of it, and the states of its captions.
A shard is foreign input: a member is read by its place, and only what has the size that the facts ask for.
"""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dataset_tools.buckets import Size
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.sources import connect, is_remote
from modules.conditions import TextFeatures, compressor_grid
from modules.schema import ConfigError, bounded, from_plain, join, nearest
from modules.weights.tensors import parse_tensors, tensor_bytes

FACTS_NAME, EMPTY_NAME = "precomputed.json", "empty.safetensors"
PARTS = ("semantic_compressor", "stage_a", "image_encoder", "text_encoder")
SEEN_BY = ("image_size_px", "multiple_px", "aspect_ratios", "inverse_ratios", "random_ratio", "crop", "flip")
"""The settings of `data` that decide what the networks saw of a picture."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
MAX_EXPANSION = 32  # bytes that a compressed byte may become; real latents stay below 2
Read = Callable[[int, int], bytes]
"""(offset, number of bytes) -> bytes of a member."""


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


@dataclass(frozen=True)
class Latents:
    """The precomputed samples that a stream reads. parts: of the networks, those whose tensors are read."""

    folder: str
    facts: Facts
    parts: tuple[str, ...]

    def only(self, parts: Iterable[str]) -> "Latents":
        """The same, of which only these parts are read."""
        wanted = set(parts)
        return replace(self, parts=tuple(part for part in self.parts if part in wanted))

    def version(self, epoch: int) -> int:
        """Which version of every picture an epoch shows."""
        return epoch % self.facts.versions

    @cached_property
    def empty(self) -> TextFeatures:
        """States [L, D] and [1, P] of the empty caption. Raises OSError or ValueError."""
        data = _read_file(self.folder, EMPTY_NAME)
        shapes = caption_shapes(self.facts.networks["text_encoder"], "")
        found = parse_tensors(lambda start, count: data[start : start + count], len(data), shapes, self.dtype)
        return TextFeatures(*found.values())

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the tensors."""
        return DTYPES[self.facts.dtype]

    def read(self, member: Read, num_bytes: int, bucket: Size, epoch: int, caption: str) -> dict[str, Tensor]:
        """The tensors of a sample as a batch calls them.

        Raises UnusableError for a member that is not sound, OSError when it cannot be had.
        """
        try:
            return self._read(member, num_bytes, bucket, epoch, caption)
        except ValueError as error:
            raise UnusableError(Kind.LATENTS, str(error)) from error

    def _read(
        self, member: Read, num_bytes: int, bucket: Size, epoch: int, caption: str
    ) -> dict[str, Tensor]:
        if self.facts.compressed:
            data = unpacked(member(0, num_bytes))
            member, num_bytes = lambda start, count: data[start : start + count], len(data)
        shapes = self._shapes(bucket, self.version(epoch), caption)
        found = parse_tensors(member, num_bytes, shapes, self.dtype)
        names = [name for part in self.parts if part != "text_encoder" for name in BATCH_NAMES[part]]
        row = dict(zip(names, found.values(), strict=False))
        if "text_encoder" in self.parts:
            text = tuple(found.values())[-2:] if caption else self.empty
            row |= dict(zip(BATCH_NAMES["text_encoder"], text, strict=True))
        return row

    def _shapes(self, bucket: Size, version: int, caption: str) -> dict[str, tuple[int, ...]]:
        """The tensors of a member that are read, in the order of `parts`, captions last."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name in self.parts:
            part = self.facts.networks[name]
            if name == "text_encoder":
                continue
            grid: tuple[int, ...] = ()
            if name != "image_encoder":
                grid = compressor_grid(bucket, part.scale, part.factor)
            shapes[f"{name}.{version}"] = (*part.shape, *grid)
        if "text_encoder" in self.parts and caption:
            shapes |= caption_shapes(self.facts.networks["text_encoder"], caption)
        return shapes

    def check(self, settings: Any) -> None:
        """Raise ConfigError unless the settings of `data` show pictures as they were seen."""
        here = f"the latents in {self.folder}"
        if settings.control is not None:
            raise ConfigError(f"data.control: control pictures are made of pixels, {here} have none")
        for key in SEEN_BY:
            expected, found = self.facts.data.get(key), plain(getattr(settings, key))
            if expected != found:
                raise ConfigError(f"data.{key}: expected {expected!r}, as of {here}, found {found!r}")
        if "text_encoder" not in self.facts.networks:
            return
        for key in ("caption", "alternative_caption"):
            name = getattr(settings, key)
            if name is not None and name not in self.facts.captions:
                known = ", ".join(self.facts.captions)
                raise ConfigError(f"data.{key}: expected a field of {here} ({known}), found {name!r}")


BATCH_NAMES = {
    "semantic_compressor": ("latents",),
    "stage_a": ("stage_a_latents",),
    "image_encoder": ("image_embeds",),
    "text_encoder": ("text_tokens", "text_pooled"),
}
"""What a batch calls the tensors of each part."""


def caption_shapes(part: Part, caption: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a caption's states. The name is the text's checksum: they are of that text."""
    key = hashlib.sha256(caption.encode("utf-8", "backslashreplace")).hexdigest()[:16]
    return {f"text_encoder.{key}.tokens": tuple(part.shape), f"text_encoder.{key}.pooled": tuple(part.pooled)}


def plain(value: Any) -> Any:
    """A setting as json gives it back; ratios as text, so that 1.5 and "1.5" are one."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else value


def packed(data: bytes) -> bytes:
    """Compress: even and odd bytes apart, for the upper halves of numbers are alike and the lower are not."""
    return zlib.compress(data[0::2] + data[1::2], 6)


def unpacked(data: bytes) -> bytes:
    """The inverse. Raises ValueError for what `packed` did not make or what would grow out of measure."""
    limit = len(data) * MAX_EXPANSION + 4096
    try:
        stream = zlib.decompressobj()
        halves = stream.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"the latents cannot be decompressed: {error}") from error
    if not stream.eof:
        raise ValueError(f"the latents are cut, or grow to more than {limit} bytes")
    result = bytearray(len(halves))
    middle = (len(halves) + 1) // 2
    result[0::2], result[1::2] = halves[:middle], halves[middle:]
    return bytes(result)


def find(shards: Sequence[str]) -> Latents | None:
    """What says how the shards' samples were precomputed; None where they hold pictures.

    Raises ConfigError when only some were, or not all alike.
    """
    folders = dict.fromkeys(shard.rpartition("/")[0] or "." for shard in shards)
    found = {folder: read_facts(folder) for folder in folders}
    made = {folder: facts for folder, facts in found.items() if facts is not None}
    if not made:
        return None
    first, facts = next(iter(made.items()))
    for folder in folders:
        if folder not in made:
            raise ConfigError(f"data.shards: {first} holds precomputed latents, {folder} does not; name one")
        if unlike := difference(facts, made[folder]):
            raise ConfigError(f"data.shards: {first} and {folder} were not precomputed alike: {unlike}")
    return Latents(first, facts, tuple(part for part in PARTS if part in facts.networks))


def alike(one: Latents | None, other: Latents | None) -> bool:
    """Whether two streams hold the same kind of samples: pictures, or latents that were made alike."""
    if one is None or other is None:
        return one is other
    return one.facts == other.facts


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
        data = _read_file(folder, FACTS_NAME)
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
    folder.mkdir(parents=True, exist_ok=True)
    if empty:
        _write_file(folder / EMPTY_NAME, tensor_bytes(empty))
    _write_file(folder / FACTS_NAME, json.dumps(asdict(facts), indent=1).encode() + b"\n")


def _write_file(path: Path, data: bytes) -> None:
    """Under a temporary name of this process's own first, so that nobody reads half of it."""
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(unfinished, 0o644)  # as others that are written
    os.replace(unfinished, path)


def _read_file(folder: str, name: str) -> bytes:
    """The bytes of a file beside shards. Raises OSError."""
    if not is_remote(folder):
        return Path(folder, name).read_bytes()
    file_system, path = connect(f"{folder}/{name}")
    with suppress(
        Exception
    ):  # every file system of fsspec has its own errors, and says "missing" its own way
        return file_system.cat_file(path)
    raise FileNotFoundError(f"{folder}/{name}: cannot be had")
