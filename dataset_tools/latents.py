"""What `precompute` made of a data set: the facts beside its shards, and how a sample's tensors are read.

A sample of such a shard holds, in place of its picture, a safetensors member: for each version of the picture
(the bucket, crop and flip that one epoch draws) what the networks made of it, and the states of its captions.
A shard is foreign input: a member is read by its place, and only what has the size that the facts ask for.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from dataset_tools.buckets import Size
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.latent_facts import (
    DTYPES,
    EMPTY_NAME,
    FACTS_NAME,
    PARTS,
    SEEN_BY,
    Facts,
    caption_shapes,
    difference,
    plain,
    read_beside,
    read_facts,
)
from dataset_tools.sources import COMMAND
from modules.conditions import TextFeatures, compressor_grid
from modules.schema import ConfigError
from modules.weights.tensors import parse_all, parse_tensors

MAX_EXPANSION = 32  # bytes that a compressed byte may become; real latents stay below 2
MAX_UNPACKED_BYTES = 1 << 28
Read = Callable[[int, int], bytes]
"""(offset, number of bytes) -> bytes of a member."""


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
        data = read_beside(self.folder, EMPTY_NAME)
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

    def check_all(self, data: bytes) -> None:
        """Look at all of a sample's member. Raises UnusableError when training would not use some of it."""
        try:
            tensors = parse_all(unpacked(data) if self.facts.compressed else data)
        except ValueError as error:
            raise UnusableError(Kind.LATENTS, str(error)) from error
        seen = [part for part in self.parts if part != "text_encoder"]
        versions = range(self.facts.versions)
        missing = {f"{part}.{version}" for part in seen for version in versions} - tensors.keys()
        wrong = [name for name, tensor in tensors.items() if tensor.dtype != self.dtype]
        unsound = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        kinds = {"missing": missing, f"not of {self.facts.dtype}": wrong, "not finite": unsound}
        for what, names in kinds.items():
            if names:
                raise UnusableError(Kind.LATENTS, f"the tensor {min(names)} is {what}")

    def _read(
        self, member: Read, num_bytes: int, bucket: Size, epoch: int, caption: str
    ) -> dict[str, Tensor]:
        if self.facts.compressed:
            data = unpacked(member(0, num_bytes))
            member, num_bytes = lambda start, count: data[start : start + count], len(data)
        shapes = self._shapes(bucket, self.version(epoch), caption)
        found = parse_tensors(member, num_bytes, shapes, self.dtype)
        if unsound := [name for name, tensor in found.items() if not tensor.isfinite().all()]:
            raise ValueError(f"the tensor {unsound[0]} is not finite")
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


def packed(data: bytes) -> bytes:
    """Compress: even and odd bytes apart, for the upper halves of numbers are alike and the lower are not.

    Nothing repeats in them, so only their frequencies are used: 14 times as fast, and a little smaller.
    """
    stream = zlib.compressobj(6, zlib.DEFLATED, strategy=zlib.Z_HUFFMAN_ONLY)
    return stream.compress(data[0::2] + data[1::2]) + stream.flush()


def unpacked(data: bytes) -> bytes:
    """The inverse. Raises ValueError for what `packed` did not make or what would grow out of measure."""
    limit = min(len(data) * MAX_EXPANSION + 4096, MAX_UNPACKED_BYTES)
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
    folders = dict.fromkeys(_folder(shard) for shard in shards)
    found = {folder: read_facts(folder) if folder else None for folder in folders}
    made = {folder: facts for folder, facts in found.items() if facts is not None}
    if not made:
        return None
    first, facts = next(iter(made.items()))
    for folder in folders:
        if folder not in made:
            other = folder or "a command's output"
            raise ConfigError(f"data.shards: {first} holds precomputed latents, {other} does not; name one")
        if unlike := difference(facts, made[folder]):
            raise ConfigError(f"data.shards: {first} and {folder} were not precomputed alike: {unlike}")
    return Latents(first, facts, tuple(part for part in PARTS if part in facts.networks))


def _folder(shard: str) -> str:
    """Where the facts would lie; empty for a command, beside whose output nothing lies."""
    return "" if shard.startswith(COMMAND) else shard.rpartition("/")[0] or "."


def alike(one: Latents | None, other: Latents | None) -> bool:
    """Whether two streams hold the same kind of samples: pictures, or latents that were made alike."""
    if one is None or other is None:
        return one is other
    return one.facts == other.facts


@cache
def _of_shard(shard: str) -> Latents | None:
    return find([shard])


def check_member(shard: str, data: bytes) -> None:
    """Look at all of a member of a shard. Raises UnusableError when training would not use some of it."""
    try:
        latents = _of_shard(shard)
    except ConfigError as error:
        raise UnusableError(Kind.LATENTS, str(error)) from error
    if latents is None:
        raise UnusableError(Kind.LATENTS, f"there is no {FACTS_NAME} beside the shard")
    latents.check_all(data)
