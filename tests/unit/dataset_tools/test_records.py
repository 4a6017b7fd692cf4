"""Reading samples from sound and damaged shards."""

import gzip
import io
import random
import tarfile

import pytest

from dataset_tools import tar_members
from dataset_tools.kinds import Kind
from dataset_tools.records import read_samples


def tar_of(members, end_mark=True) -> bytes:
    """Return a tar of (name, content) pairs; one of two parts is enough for a small shard."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        used = tar.offset
    return buffer.getvalue() if end_mark else buffer.getvalue()[:used]


def sample(key, picture=b"picture"):
    return [(f"{key}.jpg", picture), (f"{key}.txt", f"caption {key}".encode()), (f"{key}.json", b'{"n": 1}')]


def read(data: bytes):
    broken = []
    samples = list(read_samples(io.BytesIO(data), "s.tar", broken.append))
    return samples, broken


def keys(samples):
    return [s.key for s in samples]


def test_sound_shard():
    samples, broken = read(tar_of(sample("a") + sample("dir/b")))
    assert not broken
    assert samples[0][:7] == ("a", b"picture", "jpg", "caption a", {"n": 1}, "s.tar", 0)
    assert keys(samples) == ["a", "dir/b"]
    assert [s.index for s in samples] == [0, 1]


def test_compressed_shard_is_refused_with_the_reason():
    samples, (broken,) = read(gzip.compress(tar_of(sample("a") + sample("b"))))
    assert not samples
    assert broken.kind is Kind.NOT_TAR and "gzip" in broken.reason


def test_caption_and_facts_may_be_missing():
    (only,), broken = read(tar_of([("a.png", b"x")]))
    assert not broken
    assert only.caption is None
    assert only.facts == {}


def test_endings_in_upper_case_and_byte_order_marks():
    (only,), _ = read(
        tar_of([("A.JPG", b"x"), ("A.TXT", b"\xef\xbb\xbf caption \n"), ("A.json", b"\xef\xbb\xbf{}")])
    )
    assert (only.key, only.image_ext, only.caption) == ("A", "jpg", "caption")


@pytest.mark.parametrize(
    "member, kind",
    [
        (("b.txt", b"\xff\xfe"), "encoding"),
        (("b.json", b"{"), "not_json"),
        (("b.json", b"[" * 100_000), "nested"),
        (("b.json", b"[1]"), "no_object"),
        (("b.json", b"\xff"), "encoding"),
    ],
)
def test_broken_member_is_reported_and_the_rest_goes_on(member, kind):
    members = [("b.jpg", b"x"), member]
    samples, broken = read(tar_of(sample("a") + members + sample("c")))
    assert keys(samples) == ["a", "c"]
    assert [s.index for s in samples] == [0, 2]
    assert broken[0][:3] == ("s.tar", "b", kind)
    assert len(broken) == 1


def test_sample_without_a_picture_or_with_an_empty_one():
    samples, broken = read(tar_of([("a.txt", b"x"), ("b.jpg", b""), ("b.txt", b"x")] + sample("c")))
    assert keys(samples) == ["c"]
    assert [b.key for b in broken] == ["a", "b"]


def test_name_twice_in_a_sample_is_ambiguous():
    samples, broken = read(tar_of([("a.jpg", b"1"), ("a.jpg", b"2"), ("a.txt", b"x")] + sample("b")))
    assert keys(samples) == ["b"]
    assert "twice" in broken[0].reason


def test_pickles_are_bytes_to_the_reader():
    samples, broken = read(tar_of([("a.jpg", b"x"), ("a.pyd", b"cos\nsystem\n(S'false'\ntR.")]))
    assert keys(samples) == ["a"]
    assert not broken


def test_what_is_no_part_of_a_sample_is_passed_over():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in [("._a.jpg", b"mac"), ("__meta__.json", b"{}"), ("README", b"x"), *sample("a")]:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        folder = tarfile.TarInfo("b.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    samples, broken = read(buffer.getvalue())
    assert keys(samples) == ["a"]
    assert not broken


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_reported_and_not_followed(kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("b.jpg")
        header.type, header.linkname = kind, "/etc/passwd"
        tar.addfile(header)
    samples, broken = read(buffer.getvalue())
    assert not samples
    assert [(each.key, each.kind) for each in broken] == [("b", Kind.LINK)]


def test_names_with_dots_are_taken_apart_when_they_are_different_pictures():
    members = [("cat.v1.jpg", b"1"), ("cat.v1.txt", b"one"), ("cat.v2.jpg", b"2"), ("cat.v2.txt", b"two")]
    samples, broken = read(tar_of(members))
    assert not broken
    assert [(s.key, s.image_bytes, s.caption) for s in samples] == [
        ("cat.v1", b"1", "one"),
        ("cat.v2", b"2", "two"),
    ]


def test_second_picture_of_a_sample_does_not_take_its_place():
    (only,), _ = read(tar_of([("a.seg.png", b"mask"), ("a.jpg", b"picture"), ("a.txt", b"x")]))
    assert only.image_bytes == b"picture"
    assert only.key == "a"


def test_long_and_unicode_names():
    long = "x" * 300
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in (f"{long}.jpg", "日本 é.jpg"):
            tar.addfile(tarfile.TarInfo(name), None)
    assert {b.key for b in read(buffer.getvalue())[1]} == {long, "日本 é"}


def test_tar_cut_inside_a_picture_loses_that_sample_only():
    whole = tar_of(sample("a") + sample("b", bytes(5000)))
    samples, broken = read(whole[: 6 * 512 + 512 + 1000])
    assert keys(samples) == ["a"]
    assert {b.key for b in broken} == {"", "b"}


def test_tar_cut_between_picture_and_caption_does_not_give_half_a_sample():
    samples, broken = read(tar_of(sample("a") + sample("b")[:1], end_mark=False))
    assert keys(samples) == ["a"]
    assert [b.key for b in broken] == ["", "b"]
    assert "cut" in broken[0].reason


def test_samples_never_continue_in_the_next_shard():
    first = tar_of([("a.jpg", b"first")], end_mark=False)
    second = tar_of([("a.txt", b"caption of another picture")])
    samples = read(first)[0] + read(second)[0]
    assert samples == []


def test_reading_goes_on_after_a_damaged_header():
    data = bytearray(tar_of([m for key in "abcdef" for m in sample(key)]))
    data[2 * 6 * 512 : 2 * 6 * 512 + 20] = b"\xff" * 20  # the header of c.jpg
    samples, broken = read(bytes(data))
    assert keys(samples) == ["a", "d", "e", "f"]  # b may have lost a member there
    assert [b.key for b in broken] == ["", "b", "c"]
    assert "damaged" in broken[0].reason


@pytest.mark.parametrize("data", [b"", b"x" * 10, b"<html>not found</html>" * 100, bytes(10240)])
def test_what_is_no_tar_gives_nothing_and_raises_nothing(data):
    samples, broken = read(data)
    assert samples == []
    assert bool(broken) == any(data) or data == b""


def test_cutting_a_shard_anywhere_never_pairs_or_shortens_a_sample():
    whole = tar_of([m for key in "abc" for m in sample(key, key.encode() * 600)])
    complete = read(whole)[0]
    for length in range(0, len(whole), 111):
        samples, broken = read(whole[:length])
        assert samples == complete[: len(samples)], length
        assert broken or len(samples) == 3
        places = list(read_samples(io.BytesIO(whole[:length]), "s.tar", lambda _: None, with_pictures=False))
        assert [p.key for p in places] == keys(samples), length


def test_places_without_pictures():
    data = tar_of([m for key in "abc" for m in sample(key, key.encode() * 600)])
    complete, _ = read(data)
    places = list(read_samples(io.BytesIO(data), "s.tar", lambda _: None, with_pictures=False))
    for place, full in zip(places, complete, strict=True):
        assert place == full._replace(image_bytes=b"")
        assert data[place.image_offset :][: place.image_num_bytes] == full.image_bytes


def test_member_of_absurd_size_is_refused(monkeypatch):
    monkeypatch.setattr(tar_members, "MAX_MEMBER_BYTES", 100)
    samples, broken = read(tar_of(sample("a", bytes(101)) + sample("b", bytes(100))))
    assert keys(samples) == ["b"]
    assert "more than 100 bytes" in broken[0].reason


def test_failing_connection_ends_the_shard_with_a_report():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 4096:
                raise ConnectionResetError("connection reset")
            return super().read(min(size, 1024) if size and size > 0 else 1024)

    broken = []
    data = tar_of([m for n in range(50) for m in sample(f"{n}")])
    samples = list(read_samples(Failing(data), "s.tar", broken.append))
    assert len(samples) < 50
    assert "connection reset" in broken[0].reason


def patched_header(data: bytes, start: int, field: slice, value: bytes) -> bytes:
    """Return a tar with a field of the header at `start` replaced, and its checksum made right."""
    header = bytearray(data[start : start + 512])
    header[field] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:start] + bytes(header) + data[start + 512 :]


@pytest.mark.parametrize("with_pictures", [True, False])
def test_negative_size_does_not_lead_round_in_circles(with_pictures):
    size = b"\xff" * 10 + (-1024 & 0xFFFF).to_bytes(2, "big")
    data = patched_header(tar_of(sample("a") + sample("b")), 6 * 512, slice(124, 136), size)
    broken = []
    samples = list(read_samples(io.BytesIO(data), "s.tar", broken.append, with_pictures=with_pictures))
    assert keys(samples) in (["a"], [])
    assert any("negative" in b.reason or "damaged" in b.reason for b in broken)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_random_damage_never_raises(format):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in [m for key in ("a", "b" * 150, "é" * 60) for m in sample(key)]:
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(content), 1.5
            header.pax_headers = {"GNU.sparse.map": "0,5", "GNU.sparse.size": "5", "size": str(len(content))}
            tar.addfile(header, io.BytesIO(content))
    whole, rng = buffer.getvalue(), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(len(data))] = rng.choice(b"\x00\xff0=xSL \x80")
        read(bytes(data))
