"""Headers of plain files, read in one go: what tarfile says of them, and nothing else."""

import io
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataset_tools.records import read_samples
from dataset_tools.shards import ShardWriter
from dataset_tools.tar_headers import PlainHeader, plain_header

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def header(name: str = "000000001.jpg", kind: str = "ustar", **facts) -> bytes:
    info = tarfile.TarInfo(name)
    for key, value in {"size": 1234567, "mtime": 1_700_000_000, "uname": "somebody", **facts}.items():
        setattr(info, key, value)
    return info.tobuf(FORMATS[kind], "utf-8", "surrogateescape")[:512]


def summed(block: bytes) -> bytes:
    """With the checksum that belongs to it."""
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    return block[:148] + b"%06o\0 " % total + block[156:]


def by_tarfile(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None


def check(block: bytes) -> None:
    """Nothing is said that tarfile does not say too."""
    found, expected = plain_header(block), by_tarfile(block)
    if found is None:
        return
    assert expected is not None and expected.type == tarfile.REGTYPE
    assert found.name.decode("utf-8", "surrogateescape") == expected.name
    assert (found.num_bytes, found.checksum) == (expected.size, expected.chksum)
    assert not expected.linkname


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["a.jpg", "folder/a.b.json", "é" * 50, "x" * 100])
def test_the_headers_of_files_are_read(kind, name):
    block = header(name, kind)
    if kind == "pax" and not name.isascii():  # a header about the name goes before
        return
    found = plain_header(block)
    assert isinstance(found, PlainHeader)
    assert (found.name, found.num_bytes) == (name.encode(), 1234567)
    check(block)


OTHERS = {
    "a link": header(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a folder": header(type=tarfile.DIRTYPE),
    "a file of the oldest tars": header(type=tarfile.AREGTYPE),
    "a long name's beginning": header("folder/" * 15 + "a.jpg"),
    "a header about the next": header(type=tarfile.XHDTYPE),
    "sparse": header(type=tarfile.GNUTYPE_SPARSE),
    "8 GiB and more": header(kind="gnu", size=1 << 33),
    "less than nothing": header(kind="gnu", size=-1),
    "a wrong checksum": header().replace(b"000000001", b"000000002"),
    "no name": header(""),
    "no number": summed(header()[:124] + b"0000000009\0 " + header()[136:]),
    "zeros": bytes(512),
    "too short": header()[:511],
    "nothing": b"",
}


@pytest.mark.parametrize("block", OTHERS.values(), ids=OTHERS)
def test_whatever_else_is_left_to_tarfile(block):
    assert plain_header(block) is None


@given(
    st.sampled_from([header(kind=kind) for kind in FORMATS]),
    st.lists(st.tuples(st.integers(0, 511), st.sampled_from([*b"\x000 79/a\x80\xff"])), max_size=3),
    st.booleans(),
)
@example(header(), [(100, ord(" "))], True)
@example(header(), [(156, 0)], True)
@example(header(), [(5, 0)], True)  # the name ends there for tarfile
@example(header(), [(345, ord("a"))], True)  # goes before the name
def test_changed_headers_never_say_more_than_to_tarfile(block, changes, to_sum):
    changed = bytearray(block)
    for place, value in changes:
        changed[place] = value
    check(summed(bytes(changed)) if to_sum else bytes(changed))


def test_our_own_shards_need_no_other_way(tmp_path, monkeypatch):
    facts = {"width_px": 8, "height_px": 6}
    with ShardWriter(tmp_path) as writer:
        for number in range(3):
            writer.write(f"{number:09d}", b"picture", "jpg", "a caption", facts)
    data = (tmp_path / "000000.tar").read_bytes()
    asked = []
    usual = tarfile.TarInfo.frombuf

    def frombuf(block, encoding, errors):
        asked.append(block)
        return usual(block, encoding, errors)

    monkeypatch.setattr(tarfile.TarInfo, "frombuf", frombuf)
    samples = list(read_samples(io.BytesIO(data), "s.tar", pytest.fail))
    assert [each.key for each in samples] == [f"{number:09d}" for number in range(3)]
    assert samples[1][1:5] == (b"picture", "jpg", "a caption", facts)
    assert not any(block.strip(b"\0") for block in asked)  # but the end mark
