"""The members of a tar that are parts of samples, with a word on every damaged place.

`tarfile` ends a tar in silence at a damaged header or a missing end; here reading goes on behind it, and who
reads knows that something may be missing.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from typing import Any, BinaryIO, NamedTuple

from dataset_tools.images import SUFFIXES

MAX_MEMBER_BYTES = 1 << 30
"""A member larger than this is not a picture; refused, because compressed tars can promise any size."""

_READ_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, LZMAError)
"""What reading a damaged tar raises; ValueError comes from numbers in extended headers."""


class Content(NamedTuple):
    """What a member holds, and where; `data` is empty for a picture that is not to be read."""

    offset: int
    num_bytes: int
    data: bytes


def is_picture(ext: str) -> bool:
    """Say whether a member of this extension (lower case, perhaps with dots in it) is a picture."""
    return f".{ext.rpartition('.')[2]}" in SUFFIXES


class Entry(NamedTuple):
    """One member of a tar; the last has no key when the tar ends in damage."""

    key: str = ""
    ext: str = ""
    content: Content = Content(0, 0, b"")
    problem: str = ""
    """Why the content is not to be used; empty when it is."""
    damage: str = ""
    """What is wrong with the tar between the member before and this one; empty when all is well."""


def read_entries(file: BinaryIO, with_pictures: bool) -> Iterator[Entry]:
    """Iterate over the members of a tar that are parts of samples."""
    mode: Any = "r|*" if with_pictures else "r:"  # read through as a stream, or seek
    unread: tuple[str, str] | None = None
    try:
        with _Archive.open(fileobj=file, mode=mode, ignore_zeros=True, bufsize=1 << 20) as archive:
            assert isinstance(archive, _Archive)
            while (member := archive.next()) is not None:
                archive.members = []  # tarfile would keep every header
                if member.size < 0:
                    raise tarfile.ReadError("a member of negative size")  # it would lead round in circles
                if unread := _key_and_ext(member):
                    damage = archive.take_problem()
                    wanted = with_pictures or not is_picture(unread[1])
                    yield Entry(*unread, *_content(archive, member, wanted), damage)
                unread = None
            damage = archive.take_problem()
    except _READ_ERRORS as error:
        damage = f"reading ended early: {error}"
        if unread:
            yield Entry(*unread, problem=damage)
    if damage:
        yield Entry(damage=damage)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: bool) -> tuple[Content, str]:
    """Return the content of a regular member, its bytes if wanted, and what is wrong with it."""
    if member.size > MAX_MEMBER_BYTES:
        return Content(0, 0, b""), f"a member has {member.size} bytes, more than {MAX_MEMBER_BYTES} bytes"
    if not wanted:
        return Content(member.offset_data, member.size, b""), ""
    content = archive.extractfile(member)
    assert content is not None  # so for regular files only
    return Content(member.offset_data, member.size, content.read()), ""


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
