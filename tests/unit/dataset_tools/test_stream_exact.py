"""With data.epochs every sample is read once per epoch, whoever reads it, and the stream ends."""

import itertools
import json
from collections import Counter
from functools import partial

import pytest
import torch

from dataset_tools.stream import Stream
from tests.unit.dataset_tools import stream_cases
from tests.unit.dataset_tools.stream_cases import keys_of, take

SIZES = [(16, 16), (32, 16), (15, 17), (16, 32), (40, 18)]
COUNTS = [7, 5, 1, 9, 6, 3]
KEYS = [f"{number:03}" for number in range(sum(COUNTS))]
config = partial(stream_cases.config, epochs=2, random_ratio=0.2, batch_size=3)


@pytest.fixture
def folder(make_shards):
    """31 samples of five shapes in six uneven shards."""
    return make_shards(COUNTS, SIZES)


def own_keys(batches):
    """The keys that count: not those of borrowed rows."""
    return [key for batch in batches if batch["share"] for key in batch["keys"]]


@pytest.mark.parametrize("split", ["samples", "shards"])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_sample_comes_once_per_epoch_over_all_ranks_and_workers(folder, split, num_workers, world_size):
    settings = config(folder, split=split, num_workers=num_workers)
    ranks = [list(Stream(settings, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert Counter(own_keys(itertools.chain(*ranks))) == dict.fromkeys(KEYS, 2)
    if split == "samples":
        assert len({len(batches) for batches in ranks}) == 1


def test_an_epoch_ends_with_short_batches_and_nothing_of_it_comes_later(folder):
    batches = list(Stream(config(folder, split="samples", batch_size=4)))
    half = len(batches) // 2
    for epoch in (batches[:half], batches[half:]):
        assert sorted(own_keys(epoch)) == KEYS
    assert {len(batch["keys"]) for batch in batches} > {4}
    assert keys_of(batches[:half]) != keys_of(batches[half:])


def test_the_last_batch_says_so(folder):
    for num_workers in (0, 2):
        stream = Stream(config(folder, num_workers=num_workers, epochs=1))
        ends = [stream.has_ended for _ in stream]
        assert ends[-1] and not any(ends[:-1])


def test_one_rank_and_three_form_the_same_global_batches(folder):
    whole = list(Stream(config(folder, split="samples", batch_size=6), seed=3))
    settings = config(folder, split="samples", batch_size=2)
    ranks = [list(Stream(settings, rank=rank, world_size=3, seed=3)) for rank in range(3)]
    num_borrowed = 0
    for batch, *parts in zip(whole, *ranks, strict=True):
        own = [part for part in parts if part["share"]]
        assert batch["keys"] == own_keys(parts)
        assert torch.equal(batch["images"], torch.cat([part["images"] for part in own]))
        num_borrowed += len(parts) - len(own)
        for part in parts:
            assert part["share"] or (len(part["keys"]) == 1 and part["keys"][0] in batch["keys"])
    assert num_borrowed > 0


@pytest.mark.parametrize("split", ["samples", "shards"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_is_exact_to_the_end(folder, split, num_workers):
    settings = config(folder, split=split, num_workers=num_workers)
    for rank in range(2):
        make = partial(Stream, settings, rank=rank, world_size=2, seed=1)
        whole = keys_of(make())
        stops = range(len(whole) + 1) if num_workers == 0 else (3, len(whole) - 2, len(whole))
        for stop in stops:
            stream, resumed = make(), make()
            assert keys_of(take(stream, stop)) == whole[:stop]
            resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
            assert keys_of(resumed) == whole[stop:]


def test_more_epochs_than_before_go_on_after_the_last(folder):
    stream = Stream(config(folder, epochs=1))
    first = keys_of(stream)
    longer = Stream(config(folder, epochs=2))
    longer.load_state_dict(stream.state_dict())
    assert first + keys_of(longer) == keys_of(Stream(config(folder, epochs=2)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_cannot_be_decoded_is_counted_and_nothing_is_repeated_for_it(
    make_tar, make_png, tmp_path, num_workers
):
    """Of 14 pictures 7 are broken: rank 1 loses all rows of the first batch, both all of the third."""
    broken = {1, 2, 3, 8, 9, 10, 11}
    members = []
    for number in range(14):
        image = b"\x89PNG broken" if number in broken else make_png(16, 16, (number, 0, 0))
        facts = b'{"width_px": 16, "height_px": 16}'
        members += [(f"{number:02}.png", image), (f"{number:02}.txt", b"x"), (f"{number:02}.json", facts)]
    make_tar(tmp_path / "0.tar", members)
    settings = config(
        tmp_path,
        epochs=1,
        shuffle=0,
        split="samples",
        batch_size=2,
        num_workers=num_workers,
        random_ratio=0.0,
    )
    streams = [Stream(settings, rank=rank, world_size=2) for rank in range(2)]
    ranks = [list(stream) for stream in streams]
    assert keys_of(ranks[0]) == [["00"], ["04", "05"], ["12", "13"]]
    assert keys_of(ranks[1]) == [["00"], ["06", "07"], ["12"]]
    assert [batch["share"] for batch in ranks[1]] == [0.0, 1.0, 0.0]
    assert sum(sum(stream.skipped.values()) for stream in streams) == len(broken)


def test_broken_pictures_after_the_last_batch_are_counted(make_tar, make_png, tmp_path):
    members = [("a.png", make_png(16, 16, (1, 2, 3))), ("a.txt", b"x")]
    members += [("b.png", b"broken"), ("b.txt", b"x"), ("b.json", b'{"width_px": 16, "height_px": 16}')]
    make_tar(tmp_path / "0.tar", members)
    stream = Stream(config(tmp_path, epochs=1, shuffle=0, batch_size=1, random_ratio=0.0))
    for batch in stream:
        assert batch["keys"] == ["a"] and stream.has_ended
        assert sum(stream.skipped.values()) == 1


def test_a_rank_whose_shards_are_all_broken_ends_without_a_batch_and_can_borrow(make_shards):
    folder = make_shards([4, 4])
    (folder / "000001.tar").write_bytes(b"")
    settings = config(folder, split="shards", epochs=1, shuffle=0)
    streams = [Stream(settings, rank=rank, world_size=2) for rank in range(2)]
    assert [len(own_keys(stream)) for stream in streams] == [4, 0]
    assert streams[1].has_ended
    batch = streams[1].any_batch()
    assert len(batch["keys"]) == 1 and batch["share"] == 0.0


def test_a_batch_is_borrowed_once(folder, monkeypatch):
    stream = Stream(config(folder))
    first = stream.any_batch()
    monkeypatch.setattr(Stream, "__iter__", None)
    assert stream.any_batch()["keys"] == first["keys"]


def test_one_sample_is_enough_for_many(make_shards):
    settings = config(make_shards([1]), epochs=2, batch_size=64, num_workers=2, random_ratio=0.0)
    ranks = [list(Stream(settings, rank=rank, world_size=3)) for rank in range(3)]
    assert [own_keys(batches) for batches in ranks] == [["000", "000"], [], []]
    assert [len(batches) for batches in ranks] == [2, 2, 2]
