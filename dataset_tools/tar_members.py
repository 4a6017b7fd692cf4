"""The members of a tar that are parts of samples, with a word on every damaged place.

`tarfile` ends a tar in silence at a damaged header or a missing end; here reading goes on behind it, and who
reads knows that something may be missing. A tar can also be made to ask for any time and memory: headers and
gaps of any length, and sparse files, are refused.
"""

import re
import tarfile
from collections.abc import Callable, Iterator
from io import SEEK_CUR
from typing import Any, BinaryIO, NamedTuple

from dataset_tools.images import SUFFIXES
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.tar_headers import plain_header

MAX_MEMBER_BYTES = 1 << 28
"""A larger member is not a picture."""
MAX_GAP_BYTES = 1 << 26
"""So much without a sound header, and the rest of a tar is given up; some 2 seconds of searching."""
MAX_HEADER_BYTES = 1 << 20
"""Long names and further facts of a member; tarfile would read any length into memory."""
MAX_CHAIN = 8
"""Of headers for one member, each about the next."""
MAX_NAME = 1000

LATENTS = ("safetensors", "safetensorsz")
"""Extensions of what `precompute` made of a picture: plain, and compressed."""

_tarfile: Any = tarfile  # whose kinds of damaged headers have no types
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|[/.])")
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Content(NamedTuple):
    """What a member holds, and where; `data` is empty for a member that is not to be read."""

    offset: int
    num_bytes: int
    data: bytes


def is_picture(ext: str) -> bool:
    """Say whether a member of this extension (lower case, perhaps with dots in it) is a picture."""
    return f".{ext.rpartition('.')[2]}" in SUFFIXES


def is_content(ext: str) -> bool:
    """Say whether a member of this extension is a picture, or what `precompute` made of one."""
    return ext in LATENTS or is_picture(ext)


class Entry(NamedTuple):
    """One member of a tar; the last has no key when the tar ends in damage."""

    key: str = ""
    ext: str = ""
    content: Content = Content(0, 0, b"")
    problem: UnusableError | None = None
    """Why the content is not to be used."""
    damage: UnusableError | None = None
    """What is wrong with the tar between the member before and this one."""


def read_entries(file: BinaryIO, is_wanted: Callable[[str, int], bool]) -> Iterator[Entry]:
    """Iterate over the members of a plain tar that are parts of samples.

    file: seekable. is_wanted: whether the content is read of an extension and a size in bytes.
    """
    unread: tuple[str, str] | None = None
    archive: _Archive | None = None
    try:
        archive = _Archive(fileobj=file, mode="r", ignore_zeros=True)
        while (member := archive.next()) is not None:
            archive.members = []  # tarfile would keep every header
            if member.size < 0:
                raise tarfile.ReadError("a member of negative size")  # it would lead round in circles
            if unread := _key_and_ext(member):
                damage = archive.take_problem()
                content, problem = _content(archive, member, unread[1], is_wanted)
                yield Entry(*unread, content, problem, damage)
            unread = None
        damage = archive.take_problem()
    except Exception as error:  # tarfile raises all kinds on damaged headers: ValueError, OverflowError, …
        damage = _early_end(error)
        if unread:
            yield Entry(*unread, problem=damage)
    if damage:
        yield Entry(damage=damage if archive and archive.num_headers else _not_tar(file, damage))


def _early_end(error: Exception) -> UnusableError:
    """Why reading a tar cannot go on."""
    reason = f"reading ended early: {error}"
    if isinstance(error, UnusableError):
        return UnusableError(error.kind, reason)
    if isinstance(error, OSError):
        return UnusableError(Kind.UNREACHABLE, reason)
    cut = isinstance(error, tarfile.ReadError) and "unexpected end" in str(error)
    return UnusableError(Kind.CUT if cut else Kind.DAMAGED, reason)


def _not_tar(file: BinaryIO, damage: UnusableError) -> UnusableError:
    """What a file without any sound header is."""
    if damage.kind in (Kind.UNREACHABLE, Kind.ENDLESS):
        return damage
    file.seek(0)
    head = file.read(16)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            return UnusableError(Kind.NOT_TAR, f"compressed with {name}; shards are plain tars, unpack it")
    what = f"not a tar (starts with {head!r})" if head else "the file is empty"
    return UnusableError(Kind.NOT_TAR, what)


def _content(
    archive: tarfile.TarFile, member: tarfile.TarInfo, ext: str, is_wanted: Callable[[str, int], bool]
) -> tuple[Content, UnusableError | None]:
    """Return the content of a member, its bytes if wanted, and what is wrong with it."""
    nothing = Content(0, 0, b"")
    if not member.isreg():
        return nothing, UnusableError(Kind.LINK, "a member is a link or device, not a file")
    if reason := _unsafe(member.name):
        return nothing, UnusableError(Kind.UNSAFE_NAME, f"a member's name {reason}")
    if member.size > MAX_MEMBER_BYTES:
        reason = f"a member has {member.size} bytes, more than {MAX_MEMBER_BYTES} bytes"
        return nothing, UnusableError(Kind.OVERSIZED, reason)
    if not is_wanted(ext, member.size):
        return Content(member.offset_data, member.size, b""), None
    file = archive.fileobj
    assert file is not None  # so for closed archives only
    file.seek(member.offset_data)
    data = file.read(member.size)
    if len(data) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return Content(member.offset_data, member.size, data), None


def _unsafe(name: str) -> str:
    """Why a name is refused; nothing is unpacked here, but keys reach logs and names of files."""
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters, more than {MAX_NAME}"
    if ".." in name and ".." in re.split(r"[/\\]", name):
        return "leads out of its folder (..)"
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return "is absolute"
    if _CONTROL.search(name):
        return "holds control characters"
    return ""


def _key_and_ext(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Split a member's name as webdataset does; None for what is no part of a sample.

    That is: folders, hidden files (a macOS tar holds ._name beside every name), names without an extension,
    and webdataset's own __meta__ members.
    """
    match = _NAME.fullmatch(member.name)
    if match is None or _META.match(member.name) or member.isdir():
        return None
    return _printable(match[1]), _printable(match[2]).lower()


def _printable(name: str) -> str:
    """A name that can stand in a line of a log, whatever bytes it was made of."""
    if name.isascii() and name.isprintable() and len(name) <= 2 * MAX_NAME:  # nearly all
        return name
    text = name[: 2 * MAX_NAME].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class _Header(tarfile.TarInfo):
    """A header that tells its archive what tarfile passes over in silence."""

    @classmethod
    def fromtarfile(cls, archive: Any) -> "_Header":
        archive.depth += 1
        try:
            if archive.depth > MAX_CHAIN:
                raise _tarfile.InvalidHeaderError("a chain of extended headers without end")
            header = cls._of_plain_file(archive) or super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            archive.note(error)
            if isinstance(error, _tarfile.SubsequentHeaderError):  # which would end the reading
                raise _tarfile.InvalidHeaderError(str(error)) from error
            raise
        finally:
            archive.depth -= 1
        archive.note_header()
        return header

    @classmethod
    def _of_plain_file(cls, archive: Any) -> Any:
        """The next header if it is of the usual kind; else None, and nothing is read."""
        block = archive.fileobj.read(tarfile.BLOCKSIZE)
        if (plain := plain_header(block)) is None:
            archive.fileobj.seek(-len(block), SEEK_CUR)
            return None
        header = cls(plain.name.decode(archive.encoding, archive.errors))
        header.size, header.chksum = plain.num_bytes, plain.checksum
        header.offset = archive.fileobj.tell() - tarfile.BLOCKSIZE
        return header._proc_member(archive)

    def _proc_member(self, archive: Any) -> Any:
        """Refuse what tarfile would follow without a limit: long extended headers, sparse files."""
        if self.type in _EXTENDED and not 0 <= self.size <= MAX_HEADER_BYTES:
            raise _tarfile.InvalidHeaderError("extended header of absurd length")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise _tarfile.InvalidHeaderError("sparse file")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _refuse_sparse(self, *_: Any) -> None:
        raise _tarfile.InvalidHeaderError("sparse file")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Archive(tarfile.TarFile):
    """A tar file that remembers damage. With `ignore_zeros` it goes on at the next sound header."""

    tarinfo = _Header
    members: list[tarfile.TarInfo]
    saw_end = False
    problem: UnusableError | None = None
    num_headers = 0
    gap_bytes = 0
    depth = 0

    def note_header(self) -> None:
        self.saw_end, self.gap_bytes = False, 0
        self.num_headers += 1

    def note(self, error: Exception) -> None:
        """Judge a block that is no header: the end mark, a damaged header, or the end of a cut file."""
        self.gap_bytes += tarfile.BLOCKSIZE
        if self.gap_bytes > MAX_GAP_BYTES:
            raise UnusableError(Kind.ENDLESS, f"{MAX_GAP_BYTES} bytes without a member")
        kind = type(error).__name__
        if kind == "EOFHeaderError":
            self.saw_end = True
        elif kind in ("EmptyHeaderError", "TruncatedHeaderError"):
            if not self.saw_end:
                self.problem = self.problem or UnusableError(Kind.CUT, "the tar is cut: it has no end mark")
        else:
            self.problem = UnusableError(Kind.DAMAGED, f"the tar is damaged near byte {self.offset}")

    def take_problem(self) -> UnusableError | None:
        """Return what was noted since the last call."""
        problem, self.problem = self.problem, None
        return problem
