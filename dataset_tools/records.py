"""One sample, and the reading of samples from a shard.

A shard is a WebDataset tar: consecutive members that share a name up to its first dot are one sample.
Reading is plain `tarfile`, not webdataset's reader, because a shard is foreign input: here nothing is
unpickled or run, a sample never continues in the next shard, and damage is reported where `tarfile` and
webdataset end the shard in silence or pair a picture with the caption of another.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, BinaryIO, NamedTuple

from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.tar_members import Content, Entry, is_content, is_picture, read_entries
from modules.schema import kind_of

MAX_CAPTION_BYTES = 1 << 16
"""A longer text describes no picture; text encoders read its first 77 tokens, after cutting up all of it."""
MAX_JSON_BYTES = 1 << 18
"""Facts are kept in memory for tens of thousands of samples."""
MAX_MEMBERS = 10_000
MAX_GROUP_BYTES = 1 << 29
"""Of all members of one name up to its first dot, which are held in memory together."""
_MAX_BYTES = {"txt": MAX_CAPTION_BYTES, "json": MAX_JSON_BYTES}


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
    kind: Kind
    reason: str


Report = Callable[[Broken], None]


@dataclass
class _Group:
    """Consecutive members of one sample: extension (lower case, without its dot) to content."""

    key: str
    problem: UnusableError | None = None
    """The first that makes all of it unusable."""
    members: dict[str, Content] = field(default_factory=dict)
    num_bytes: int = 0

    def add(self, entry: Entry) -> None:
        """Take a member in; without its bytes when the group cannot be used anyway."""
        self.num_bytes += entry.content.num_bytes
        if entry.ext in self.members:
            self.fail(UnusableError(Kind.REPEATED_MEMBER, f"holds .{entry.ext} twice"))
        elif len(self.members) >= MAX_MEMBERS or self.num_bytes > MAX_GROUP_BYTES:
            limits = f"{MAX_MEMBERS} members or {MAX_GROUP_BYTES} bytes"
            self.fail(UnusableError(Kind.CROWDED, f"more than {limits} of one name"))
        else:
            self.fail(entry.problem)
            self.members[entry.ext] = Content(0, 0, b"") if self.problem else entry.content

    def fail(self, problem: UnusableError | None) -> None:
        """Note a problem, if it is one and the first."""
        self.problem = self.problem or problem


def read_samples(
    file: BinaryIO, shard: str, report: Report, *, with_pictures: bool = True
) -> Iterator[Sample]:
    """Iterate over the usable samples of an open tar file (plain, seekable).

    shard: its name, for messages. report: called once for every broken sample and for damage of the shard.
    with_pictures: False seeks over the pictures, whose place the samples give.
    Damage never raises; what can be read after a damaged place is read.
    """

    def is_wanted(ext: str, num_bytes: int) -> bool:
        return num_bytes <= _MAX_BYTES.get(ext.rpartition(".")[2], 0) or (with_pictures and is_content(ext))

    index = 0
    seen: set[str] = set()
    for group in _groups(read_entries(file, is_wanted), shard, report):
        for key, members in _split_dotted(group):
            try:
                if group.problem:
                    raise group.problem
                sample = _sample(key, members, shard, index)
                if key in seen:
                    raise UnusableError(Kind.REPEATED_KEY, "an earlier sample of the shard has this name")
                seen.add(key)
                yield sample
            except UnusableError as error:
                report(Broken(shard, key, error.kind, str(error)))
            index += 1


def claimed_size(facts: dict[str, Any]) -> tuple[int, int] | None:
    """The (width, height) px that `pack` noted in a sample's json; None when it does not say."""
    width, height = facts.get("width_px"), facts.get("height_px")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _sample(key: str, members: dict[str, Content], shard: str, index: int) -> Sample:
    """Build the sample of these members. Raises UnusableError."""
    contents = [ext for ext in members if is_content(ext)]
    pictures = sorted(contents, key=lambda ext: (not is_picture(ext), ext.count(".")))
    if not pictures:
        raise UnusableError(Kind.NO_PICTURE, f"holds no picture, only {', '.join(members):.100}")
    ext = pictures[0]  # a.jpg goes before a.mask.png
    picture = members[ext]
    if not picture.num_bytes:
        raise UnusableError(Kind.EMPTY, f"the picture .{ext} is empty")
    caption = members.get("txt")
    return Sample(
        key=key,
        image_bytes=picture.data,
        image_ext=ext.rpartition(".")[2],
        caption=None if caption is None else _caption(caption),
        facts=_facts(members["json"]) if "json" in members else {},
        shard=shard,
        index=index,
        image_offset=picture.offset,
        image_num_bytes=picture.num_bytes,
    )


def _caption(member: Content) -> str:
    if member.num_bytes > MAX_CAPTION_BYTES:
        reason = f"the caption has {member.num_bytes} bytes, more than {MAX_CAPTION_BYTES}"
        raise UnusableError(Kind.LONG_CAPTION, reason)
    return _text(member.data, "txt").strip()


def check_caption(text: str, where: str) -> None:
    """Raise UnusableError for a text that cannot be a caption. where: what holds it, for the message."""
    num_bytes = len(text.encode(errors="surrogatepass"))  # as in a shard, where half characters are refused
    if num_bytes > MAX_CAPTION_BYTES:
        reason = f"{where} has {num_bytes} bytes, more than {MAX_CAPTION_BYTES}"
        raise UnusableError(Kind.LONG_CAPTION, reason)
    if "\0" in text or not is_unicode(text):
        raise UnusableError(Kind.ENCODING, f"{where} holds NUL or half characters")


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; an escape in a json can stand for half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(data: bytes, ext: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"the .{ext} member is not UTF-8 text (byte {error.start})"
        raise UnusableError(Kind.ENCODING, reason) from error
    if "\0" in text:  # so UTF-16 without its mark looks
        raise UnusableError(Kind.ENCODING, f"the .{ext} member holds NUL characters")
    return text


def _facts(member: Content) -> dict[str, Any]:
    """Read a json, as narrowly as the format is defined: what Python reads beyond it breaks others."""
    if member.num_bytes > MAX_JSON_BYTES:
        reason = f"the .json member has {member.num_bytes} bytes, more than {MAX_JSON_BYTES}"
        raise UnusableError(Kind.HUGE_JSON, reason)
    text = _text(member.data, "json")
    try:
        facts = json.loads(
            text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_without_repeats
        )
    except RecursionError as error:
        raise UnusableError(Kind.NESTED, "the .json member is nested too deeply") from error
    except UnusableError:
        raise
    except ValueError as error:  # JSONDecodeError, and whole numbers of thousands of digits
        raise UnusableError(Kind.NOT_JSON, f"the .json member is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise UnusableError(Kind.NO_OBJECT, f"the .json member is {kind_of(facts)}, not an object")
    if "\\ud" in text.lower() and not is_unicode(json.dumps(facts, ensure_ascii=False)):
        raise UnusableError(Kind.ENCODING, "the .json member holds half characters (lone surrogates)")
    return facts


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise UnusableError(Kind.NOT_FINITE, f"the .json member holds {text:.20}")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise UnusableError(Kind.REPEATED_NAME, "the .json member says a name twice")
    return made


def _split_dotted(group: _Group) -> Iterator[tuple[str, dict[str, Content]]]:
    """Take apart a group of names with dots, such as cat.v1.jpg cat.v1.txt cat.v2.jpg cat.v2.txt.

    To webdataset they are one sample "cat". When there is no cat.jpg that they could belong to, what stands
    before the last dot tells them apart.
    """
    if not group.members or any("." not in ext and is_content(ext) for ext in group.members):
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
            report(Broken(shard, "", entry.damage.kind, str(entry.damage)))
            if group:
                group.fail(entry.damage)
        if group is None or entry.key != group.key:
            if group:
                yield group
            group = _Group(entry.key, entry.damage)
        group.add(entry)
    if group and group.key:
        yield group
