"""One sample, and the reading of samples from a shard.

A shard is a WebDataset tar: consecutive members that share a name up to its first dot are one sample.
Reading is plain `tarfile`, not webdataset's reader, because a shard is foreign input: here nothing is
unpickled or run, a sample never continues in the next shard, and damage is reported where `tarfile` and
webdataset end the shard in silence or pair a picture with the caption of another.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from dataset_tools.tar_members import Content, Entry, is_picture, read_entries


class Sample(NamedTuple):
    """One picture and what is known about it, still encoded."""

    key: str
    image_bytes: bytes
    """Empty when read without pictures."""
    image_ext: str
    caption: str | None
    """Text of the `.txt` member without surrounding white space; None when there is no such member."""
    facts: dict[str, Any]
    """The `.json` member; empty when there is none."""
    shard: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """Position in the shard, broken samples counted."""
    image_offset: int
    """Where the picture begins in the (uncompressed) tar, in bytes."""
    image_num_bytes: int


class Broken(NamedTuple):
    """Something in a shard that could not be used. `key` is empty when it is the shard itself."""

    shard: str
    key: str
    reason: str


Report = Callable[[Broken], None]


class _Group(NamedTuple):
    """Consecutive members of one sample: extension (lower case, without its dot) to content."""

    key: str
    members: dict[str, Content]
    problems: list[str]


def read_samples(
    file: BinaryIO, shard: str, report: Report, *, with_pictures: bool = True
) -> Iterator[Sample]:
    """Iterate over the usable samples of an open tar file (plain or compressed; need not be seekable).

    shard: its name, for messages. report: called once for every broken sample and for damage of the shard.
    with_pictures: False seeks over the pictures, whose place the samples give; the file must be a plain tar.
    Damage never raises; what can be read after a damaged place is read.
    """
    index = 0
    for group in _groups(read_entries(file, with_pictures), shard, report):
        for key, members in _split_dotted(group):
            try:
                if group.problems:
                    raise ValueError(group.problems[0])
                yield _sample(key, members, shard, index)
            except ValueError as error:
                report(Broken(shard, key, str(error)))
            index += 1


def _sample(key: str, members: dict[str, Content], shard: str, index: int) -> Sample:
    """Build the sample of these members. Raises ValueError when it is not usable."""
    pictures = sorted((ext for ext in members if is_picture(ext)), key=lambda ext: ext.count("."))
    if not pictures:
        raise ValueError(f"holds no picture, only {', '.join(members)}")
    ext = pictures[0]  # a.jpg goes before a.mask.png
    picture = members[ext]
    if not picture.num_bytes:
        raise ValueError(f"the picture .{ext} is empty")
    caption = members.get("txt")
    return Sample(
        key=key,
        image_bytes=picture.data,
        image_ext=ext.rpartition(".")[2],
        caption=None if caption is None else _text(caption.data, "txt").strip(),
        facts=_facts(members["json"].data) if "json" in members else {},
        shard=shard,
        index=index,
        image_offset=picture.offset,
        image_num_bytes=picture.num_bytes,
    )


def _text(data: bytes, ext: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the .{ext} member is not UTF-8 text (byte {error.start})") from error


def _facts(data: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(_text(data, "json"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the .json member is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise ValueError(f"the .json member is a {type(facts).__name__}, not an object")
    return facts


def _split_dotted(group: _Group) -> Iterator[tuple[str, dict[str, Content]]]:
    """Take apart a group of names with dots, such as cat.v1.jpg cat.v1.txt cat.v2.jpg cat.v2.txt.

    To webdataset they are one sample "cat". When there is no cat.jpg that they could belong to, what stands
    before the last dot tells them apart.
    """
    if not group.members or any("." not in ext and is_picture(ext) for ext in group.members):
        yield group.key, group.members
        return
    parts: dict[str, dict[str, Content]] = {}
    for ext, content in group.members.items():
        middle, _, last = ext.rpartition(".")
        parts.setdefault(f"{group.key}.{middle}" if middle else group.key, {})[last] = content
    yield from parts.items()


def _groups(entries: Iterator[Entry], shard: str, report: Report) -> Iterator[_Group]:
    """Group the members of a tar. A group that touches damage has a problem: it may have lost a member."""
    group: _Group | None = None
    for entry in entries:
        if entry.damage:
            report(Broken(shard, "", entry.damage))
            if group:
                group.problems.append(entry.damage)
        if group is None or entry.key != group.key:
            if group:
                yield group
            group = _Group(entry.key, {}, [entry.damage] if entry.damage else [])
        if entry.ext in group.members:
            group.problems.append(f"holds .{entry.ext} twice")
        if entry.problem:
            group.problems.append(entry.problem)
        group.members[entry.ext] = entry.content
    if group and group.key:
        yield group
