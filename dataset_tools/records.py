"""One sample, and the reading of samples from a shard.

A shard is a WebDataset tar: consecutive members that share a name up to its first dot are one sample.
Reading is plain `tarfile`, not webdataset's reader, because a shard is foreign input: here nothing is
unpickled or run, a sample never continues in the next shard, and damage is reported where `tarfile` and
webdataset end the shard in silence or pair a picture with the caption of another.
"""

import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from lzma import LZMAError
from typing import Any, BinaryIO, NamedTuple

from dataset_tools.images import SUFFIXES

MAX_MEMBER_BYTES = 1 << 30
"""A member larger than this is not a picture; refused, because compressed tars can promise any size."""

READ_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, LZMAError)


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


class _Content(NamedTuple):
    """What a member holds, and where; `data` is empty for a picture that is not to be read."""

    offset: int
    num_bytes: int
    data: bytes


class _Group(NamedTuple):
    """Consecutive members of one sample: extension (lower case, without its dot) to content."""

    key: str
    members: dict[str, _Content]
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
    for group in _groups(_entries(file, with_pictures), shard, report):
        for key, members in _split_dotted(group):
            try:
                if group.problems:
                    raise ValueError(group.problems[0])
                yield _sample(key, members, shard, index)
            except ValueError as error:
                report(Broken(shard, key, str(error)))
            index += 1


def _sample(key: str, members: dict[str, _Content], shard: str, index: int) -> Sample:
    """Build the sample of these members. Raises ValueError when it is not usable."""
    pictures = sorted((ext for ext in members if _is_picture(ext)), key=lambda ext: ext.count("."))
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


def _is_picture(ext: str) -> bool:
    return f".{ext.rpartition('.')[2]}" in SUFFIXES


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


def _split_dotted(group: _Group) -> Iterator[tuple[str, dict[str, _Content]]]:
    """Take apart a group of names with dots, such as cat.v1.jpg cat.v1.txt cat.v2.jpg cat.v2.txt.

    To webdataset they are one sample "cat". When there is no cat.jpg that they could belong to, what stands
    before the last dot tells them apart.
    """
    if not group.members or any("." not in ext and _is_picture(ext) for ext in group.members):
        yield group.key, group.members
        return
    parts: dict[str, dict[str, _Content]] = {}
    for ext, content in group.members.items():
        middle, _, last = ext.rpartition(".")
        parts.setdefault(f"{group.key}.{middle}" if middle else group.key, {})[last] = content
    yield from parts.items()


def _groups(entries: Iterator["_Entry"], shard: str, report: Report) -> Iterator[_Group]:
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


class _Entry(NamedTuple):
    """One member of a tar; the last has no key when the tar ends in damage."""

    key: str = ""
    ext: str = ""
    content: _Content = _Content(0, 0, b"")
    problem: str = ""
    """Why the content is not to be used; empty when it is."""
    damage: str = ""
    """What is wrong with the tar between the member before and this one; empty when all is well."""


def _entries(file: BinaryIO, with_pictures: bool) -> Iterator[_Entry]:
    """Iterate over the members of a tar that are parts of samples."""
    mode: Any = "r|*" if with_pictures else "r:"  # read through as a stream, or seek
    unread: tuple[str, str] | None = None
    try:
        with _Archive.open(fileobj=file, mode=mode, ignore_zeros=True, bufsize=1 << 20) as archive:
            assert isinstance(archive, _Archive)
            while (member := archive.next()) is not None:
                archive.members = []  # tarfile would keep every header
                if unread := _key_and_ext(member):
                    damage = archive.take_problem()
                    wanted = with_pictures or not _is_picture(unread[1])
                    yield _Entry(*unread, *_content(archive, member, wanted), damage)
                unread = None
            damage = archive.take_problem()
    except READ_ERRORS as error:
        damage = f"reading ended early: {error}"
        if unread:
            yield _Entry(*unread, problem=damage)
    if damage:
        yield _Entry(damage=damage)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: bool) -> tuple[_Content, str]:
    """Return the content of a regular member, its bytes if wanted, and what is wrong with it."""
    if member.size > MAX_MEMBER_BYTES:
        return _Content(0, 0, b""), f"a member has {member.size} bytes, more than {MAX_MEMBER_BYTES} bytes"
    if not wanted:
        return _Content(member.offset_data, member.size, b""), ""
    content = archive.extractfile(member)
    assert content is not None  # so for regular files only
    return _Content(member.offset_data, member.size, content.read()), ""


def _key_and_ext(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Split a member's name as webdataset does; None for what is no part of a sample.

    That is: links, folders, devices, hidden files (a macOS tar holds ._name beside every name), names
    without an extension, and webdataset's own __meta__ members.
    """
    match = re.fullmatch(r"((?:.*/)?[^./][^./]*)\.([^/]+)", member.name)
    meta = re.match(r"__[^/]*__($|[/.])", member.name)
    if match is None or meta or not member.isreg() or member.issparse():
        return None
    key = match[1].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return key, match[2].lower()


class _Header(tarfile.TarInfo):
    """A header that tells its archive what tarfile passes over in silence."""

    @classmethod
    def fromtarfile(cls, archive: Any) -> "_Header":
        try:
            header = super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            archive.note(error)
            raise
        archive.saw_end = False
        return header


class _Archive(tarfile.TarFile):
    """A tar file that remembers damage. With `ignore_zeros` it goes on at the next sound header."""

    tarinfo = _Header
    members: list[tarfile.TarInfo]
    saw_end = False
    problem = ""

    def note(self, error: Exception) -> None:
        """Judge a block that is no header: the end mark, a damaged header, or the end of a cut file."""
        kind = type(error).__name__
        if kind == "EOFHeaderError":
            self.saw_end = True
        elif kind in ("EmptyHeaderError", "TruncatedHeaderError"):
            if not self.saw_end:
                self.problem = self.problem or "the tar is cut: it has no end mark"
        else:
            self.problem = f"the tar is damaged near byte {self.offset}"

    def take_problem(self) -> str:
        """Return what was noted since the last call; empty when all is well."""
        problem, self.problem = self.problem, ""
        return problem
