"""Broken and missing data: skipped, counted, named once; never the end of a run unless nothing is left."""

import io
import itertools
import logging
import shutil
import tarfile
from collections import Counter
from functools import partial

import pytest
import torch
from PIL import Image

from dataset_tools.fetch import ShardReader
from dataset_tools.sample_refs import ShardIndexer
from dataset_tools.stream import Stream
from dataset_tools.walker import Walker
from tests.unit.dataset_tools import stream_cases
from tests.unit.dataset_tools.stream_cases import keys_of, take

config = partial(stream_cases.config, aspect_ratios=["1/1"])


@pytest.fixture
def picture():
    """A JPEG that is sound up to its last bytes, and the same cut short: its header is sound."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(file, "JPEG")
    return file.getvalue(), file.getvalue()[:1500]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_samples_are_skipped_counted_and_named_once(
    make_tar, make_png, tmp_path, caplog, picture, num_workers
):
    good = make_png(16, 16, (5, 6, 7))
    members = []
    for number in range(8):
        members += [(f"good{number}.png", good), (f"good{number}.txt", b"fine")]
    members += [("notext.png", good)]
    members += [("nopicture.txt", b"alone")]
    members += [("latin.png", good), ("latin.txt", b"caf\xe9")]
    members += [("json.png", good), ("json.txt", b"x"), ("json.json", b"{broken")]
    members += [("header.png", b"nothing"), ("header.txt", b"x")]
    members += [("empty.png", b""), ("empty.txt", b"x")]
    members += [("cut.jpg", picture[1]), ("cut.txt", b"x")]
    shard = make_tar(tmp_path / "000000.tar", members)
    stream = Stream(config(tmp_path, num_workers=num_workers))
    seen = {key for batch in take(stream, 12) for key in batch["keys"]}
    assert seen == {f"good{number}" for number in range(8)}
    assert stream.skipped == {
        "no_caption": 1,
        "no_picture": 1,
        "encoding": 1,
        "not_json": 1,
        "not_picture": 1,
        "empty": 1,
        "cut_picture": 1,
    }
    named = Counter(
        key
        for key in ("notext", "nopicture", "latin", "json", "header", "empty", "cut")
        for record in caplog.records
        if f"{shard}:{key}:" in record.getMessage()
    )
    assert set(named.values()) == {1} and len(named) == 7
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_the_place_of_a_broken_picture_goes_to_the_next_of_its_batch(make_tar, make_png, tmp_path, picture):
    """Ranks agree on it although each decodes only its own rows, and the batches after it are the same."""
    members = []
    for number in range(8):
        image = picture[1] if number in (1, 2, 7) else make_png(16, 16, (number, 0, 0))
        name = f"{number}.jpg" if number in (1, 2, 7) else f"{number}.png"
        members += [(name, image), (f"{number}.txt", str(number).encode())]
    make_tar(tmp_path / "0.tar", members)
    settings = config(tmp_path, shuffle=0, split="samples")
    expected = [["0", "3", "3", "3"], ["4", "5", "6", "4"]]
    assert keys_of(take(Stream(settings), 4)) == expected * 2
    settings.batch_size = 2
    ranks = [keys_of(take(Stream(settings, rank=rank, world_size=2), 4)) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == expected * 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_of_broken_pictures_is_left_out_by_all_ranks(
    make_tar, make_png, tmp_path, picture, num_workers
):
    members = []
    for number in range(12):
        broken = 4 <= number < 8
        image = picture[1] if broken else make_png(16, 16, (number, 0, 0))
        members += [(f"{number:02}.{'jpg' if broken else 'png'}", image), (f"{number:02}.txt", b"x")]
    make_tar(tmp_path / "0.tar", members)
    settings = config(tmp_path, shuffle=0, split="samples", batch_size=2, num_workers=num_workers)
    ranks = [keys_of(take(Stream(settings, rank=rank, world_size=2), 4)) for rank in range(2)]
    assert ranks[0] == [["00", "01"], ["08", "09"]] * 2
    assert ranks[1] == [["02", "03"], ["10", "11"]] * 2


def test_a_cut_tar_gives_what_comes_before_the_cut(make_shards, caplog):
    folder = make_shards([6, 6])
    shard = folder / "000001.tar"
    with tarfile.open(shard) as archive:
        cut = archive.getmember("009.txt").offset
    shard.write_bytes(shard.read_bytes()[: cut + 100])
    stream = Stream(config(folder, batch_size=3))
    seen = {key for batch in take(stream, 12) for key in batch["keys"]}
    assert seen == {f"{n:03}" for n in range(9)}  # 009 may have lost its caption
    assert stream.skipped == {"cut": 2}
    assert sum(str(shard) in record.getMessage() for record in caplog.records) == 2  # the shard, the sample


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shard_that_disappears_is_skipped(make_shards, caplog, num_workers):
    folder = make_shards([4] * 4)
    stream = Stream(config(folder, num_workers=num_workers))
    (folder / "000002.tar").unlink()
    seen = {key for batch in take(stream, 12) for key in batch["keys"]}
    assert seen == {f"{n:03}" for n in range(16)} - {"008", "009", "010", "011"}
    assert stream.skipped == {"unreachable": 1}
    assert sum("000002.tar" in record.getMessage() for record in caplog.records) == 1


def test_shards_that_all_disappear_end_the_run(make_shards):
    folder = make_shards([4, 4])
    settings = config(folder)
    reader, skipped = ShardReader(), []
    indexer = ShardIndexer(settings, 0, reader, skipped.append)
    batches = Walker(indexer, Stream(settings).sources, 4).batches()
    assert len(list(itertools.islice(batches, 5))) == 5
    shutil.rmtree(folder)
    reader.close()
    with pytest.raises(ValueError, match="nothing usable"):
        list(batches)
    assert {each.name for each in skipped} == {str(folder / f"{n:06}.tar") for n in range(2)}


@pytest.mark.parametrize("shuffle", [0, 8])
def test_a_worker_whose_shards_are_all_broken_takes_others_in_a_later_epoch(make_shards, shuffle):
    folder = make_shards([4, 4])
    for number in (2, 3):
        (folder / f"{number:06}.tar").write_bytes(b"")
    settings = config(folder, split="shards", batch_size=2, shuffle=shuffle)
    for rank in range(4):
        stream = Stream(settings, rank=rank, world_size=4)
        assert len(take(stream, 12)) == 12


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "nothing usable in .*: left out: 1 not_tar"),
        ("garbage", "nothing usable in .*: left out: 1 not_tar"),
        ("captionless", "nothing usable in .*: left out: 5 no_caption; the first: .*missing_caption=empty"),
        ("undecodable", "no picture can be decoded in .*: left out: 5 cut_picture; the first: "),
    ],
)
def test_a_data_set_with_nothing_usable_ends_with_one_clear_line(
    make_tar, make_png, tmp_path, picture, num_workers, kind, message
):
    shard = tmp_path / "000000.tar"
    if kind == "empty":
        shard.write_bytes(b"")
    elif kind == "garbage":
        shard.write_bytes(b"garbage" * 1000)
    elif kind == "captionless":
        make_tar(shard, [(f"{n}.png", make_png(8, 8, (0, 0, 0))) for n in range(5)])
    else:
        make_tar(
            shard, [member for n in range(5) for member in ((f"{n}.jpg", picture[1]), (f"{n}.txt", b"x"))]
        )
    with pytest.raises(ValueError, match=message) as caught:
        take(Stream(config(tmp_path, num_workers=num_workers)), 1)
    assert "\n" not in str(caught.value)


def test_pictures_without_captions_are_read_when_asked_for(make_tar, make_png, tmp_path):
    make_tar(tmp_path / "0.tar", [(f"{n}.png", make_png(8, 8, (n, 0, 0))) for n in range(5)])
    batch = take(Stream(config(tmp_path, missing_caption="empty")), 1)[0]
    assert batch["captions"] == [""] * 4
    assert batch["images"].dtype == torch.uint8


def test_a_caption_that_is_no_text_is_reported(make_tar, make_png, tmp_path):
    picture = make_png(8, 8, (0, 0, 0))
    members = [
        ("a.png", picture),
        ("a.json", b'{"title": 7}'),
        ("b.png", picture),
        ("b.json", b'{"title": "t"}'),
    ]
    make_tar(tmp_path / "0.tar", members)
    stream = Stream(config(tmp_path, caption="title", batch_size=1))
    assert keys_of(take(stream, 3)) == [["b"]] * 3
    assert stream.skipped == {"no_caption": 1}
