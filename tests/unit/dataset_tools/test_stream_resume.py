"""A stream that is stopped, rebuilt and loaded goes on with the very batches it would have yielded."""

import json
import logging
from dataclasses import replace
from functools import partial

import pytest
import torch

from dataset_tools import batches
from dataset_tools.fetch import ShardReader
from dataset_tools.filters import Filter
from dataset_tools.stream import Stream
from tests.unit.dataset_tools import stream_cases
from tests.unit.dataset_tools.stream_cases import take

SIZES = [(16, 16), (32, 16), (15, 17), (16, 32), (40, 18)]
COUNTS = [7, 5, 9, 6]
config = partial(
    stream_cases.config,
    random_ratio=0.2,
    crop="random",
    flip=0.5,
    filters=[Filter("number", "!=", 3)],
    batch_size=2,
    shuffle=10,
)


@pytest.fixture
def folder(make_shards, make_tar):
    """27 samples in four shards, some filtered, one that cannot be decoded, and a shard that is no tar."""
    folder = make_shards(COUNTS, SIZES, with_facts=True)
    (folder / "000004.tar").write_bytes(b"no tar" * 500)
    facts = b'{"width_px": 16, "height_px": 16, "number": 99}'
    members = [("bad.png", b"no picture"), ("bad.txt", b"99"), ("bad.json", facts)]
    make_tar(folder / "000005.tar", members)
    return folder


def assert_same(some, others):
    assert [batch["keys"] for batch in some] == [batch["keys"] for batch in others]
    for one, other in zip(some, others, strict=True):
        assert one["captions"] == other["captions"]
        assert torch.equal(one["images"], other["images"])


def through_json(state):
    return json.loads(json.dumps(state))


@pytest.mark.parametrize("split", ["shards", "samples"])
def test_resume_is_exact_at_every_position(folder, split):
    """Positions within an epoch, at its end, before and after the states that workers send."""
    settings = config(folder, split=split, num_workers=0)
    whole = take(Stream(settings, seed=1), 80)
    stream = Stream(settings, seed=1)
    iterator = iter(stream)
    for position in range(70):
        if position % 3 == 0 or 30 <= position <= 36:
            resumed = Stream(settings, seed=1)
            resumed.load_state_dict(through_json(stream.state_dict()))
            assert_same(take(resumed, 5), whole[position : position + 5])
        next(iterator)


@pytest.mark.parametrize("split", ["shards", "samples"])
@pytest.mark.parametrize("stop", [1, 33, 66])
def test_resume_is_exact_with_workers_that_read_ahead(folder, split, stop):
    settings = config(folder, split=split, num_workers=2)
    for rank in range(2):
        whole = take(Stream(settings, rank=rank, world_size=2, seed=1), stop + 9)
        stream = Stream(settings, rank=rank, world_size=2, seed=1)
        assert_same(take(stream, stop), whole[:stop])
        resumed = Stream(settings, rank=rank, world_size=2, seed=1)
        resumed.load_state_dict(through_json(stream.state_dict()))
        assert_same(take(resumed, 4), whole[stop : stop + 4])
        again = Stream(settings, rank=rank, world_size=2, seed=1)
        again.load_state_dict(resumed.state_dict())
        assert_same(take(again, 5), whole[stop + 4 :])


@pytest.mark.parametrize("split", ["shards", "samples"])
def test_what_was_read_ahead_is_forgotten_where_a_position_is_taken_back(folder, split):
    """So reading may begin before it is known where to go on."""
    settings = config(folder, split=split, num_workers=2)
    whole = take(Stream(settings, seed=1), 12)
    stream = Stream(settings, seed=1)
    take(stream, 5)
    resumed = Stream(settings, seed=1)
    resumed.start()
    resumed.load_state_dict(through_json(stream.state_dict()))
    resumed.start()
    assert_same(take(resumed, 7), whole[5:])


def test_by_samples_other_numbers_of_ranks_and_workers_go_on_exactly(folder):
    settings = config(folder, split="samples", num_workers=0, batch_size=4)
    whole = take(Stream(settings, seed=1), 50)
    stream = Stream(settings, seed=1)
    take(stream, 41)
    for rank in range(2):
        resumed = Stream(replace(settings, batch_size=2, num_workers=2), rank=rank, world_size=2, seed=1)
        resumed.load_state_dict(stream.state_dict())
        expected = [batch["keys"][2 * rank : 2 * rank + 2] for batch in whole[41:]]
        assert [batch["keys"] for batch in take(resumed, 9)] == expected


def test_iterating_again_goes_on(folder):
    settings = config(folder, num_workers=0)
    whole = take(Stream(settings), 10)
    stream = Stream(settings)
    assert_same(take(stream, 6) + take(stream, 4), whole)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("split", ["shards", "samples"])
def test_resume_opens_no_shard_before_its_block(make_shards, split, num_workers, monkeypatch):
    """40 shards of 6, mixed two by two: the block it is in, and the next if that one ends."""
    folder = make_shards([6] * 40)
    settings = config(
        folder, split=split, num_workers=num_workers, batch_size=3, shuffle=12, random_ratio=0.0
    )
    for stop in (5, 31, 67):
        stream = Stream(settings, seed=1)
        take(stream, stop)
        resumed = Stream(settings, seed=1)
        resumed.load_state_dict(through_json(stream.state_dict()))
        opened = shards_opened(resumed, monkeypatch)
        lanes = 1 if split == "samples" else max(1, num_workers)
        assert len(opened) <= 4 * lanes


def shards_opened(stream, monkeypatch):
    """The shards that are opened for the next batch of a stream, by this process in the place of workers."""
    opened, lanes = set(), range(len(stream.state_dict()["lanes"]))
    original = ShardReader.file

    def spy(reader, shard):
        opened.add(shard)
        return original(reader, shard)

    with monkeypatch.context() as patch:
        patch.setattr(ShardReader, "file", spy)
        for worker in lanes:
            next(stream._data_set().items(worker, len(lanes)))
    return opened


@pytest.mark.parametrize("split", ["shards", "samples"])
def test_resume_decodes_nothing_that_was_consumed(folder, split, monkeypatch):
    settings = config(folder, split=split, num_workers=0)
    stream = Stream(settings, seed=1)
    take(stream, 62)  # two epochs and 30 batches after the last state that was sent
    decoded = []
    original = batches._decoded

    def spy(ref, *rest):
        decoded.append(ref.key)
        return original(ref, *rest)

    monkeypatch.setattr(batches, "_decoded", spy)
    resumed = Stream(settings, seed=1)
    resumed.load_state_dict(stream.state_dict())
    batch = take(resumed, 1)[0]
    assert set(batch["keys"]) <= set(decoded)
    assert len(decoded) <= len(batch["keys"]) + 1  # one more if the broken picture is among them


def test_with_another_seed_or_data_set_it_goes_on_with_the_next_epoch(folder, caplog):
    settings = config(folder, num_workers=0, split="shards")
    stream = Stream(settings, seed=1)
    take(stream, 20)
    epoch = stream.state_dict()["epoch"]
    assert epoch > 0
    caplog.set_level(logging.WARNING)
    resumed = Stream(replace(settings, image_size_px=32), seed=2)
    resumed.load_state_dict(stream.state_dict())
    take(resumed, 1)
    assert resumed.state_dict()["epoch"] == epoch + 1
    message = f"data: ['image_size_px', 'seed'] changed since the checkpoint; going on with epoch {epoch + 1}"
    assert message in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("filters", []), ("max_megapixels", 0.0003), ("caption", "number"), ("missing_caption", "empty")],
        *[("random_ratio", 0.5), ("aspect_ratios", ["1/1"]), ("shuffle", 5), ("resample", True)],
    ],
)
def test_a_setting_that_changes_which_samples_come_or_in_which_order_is_noticed(folder, key, value, caplog):
    settings = config(folder)
    stream = Stream(settings, seed=1)
    take(stream, 3)
    resumed = Stream(replace(settings, **{key: value}), seed=1)
    resumed.load_state_dict(stream.state_dict())
    named = "captions" if "caption" in key else key
    assert f"data: ['{named}'] changed since the checkpoint; going on with epoch 1" in caplog.messages


@pytest.mark.parametrize("split", ["shards", "samples"])
def test_what_was_left_out_before_is_neither_forgotten_nor_counted_again(folder, split):
    settings = config(folder, split=split, num_workers=0)
    whole = Stream(settings, seed=1)
    take(whole, 40)
    assert len(whole.skipped) > 1
    for stop in (1, 5, 20, 33):
        stream, resumed = Stream(settings, seed=1), Stream(settings, seed=1)
        take(stream, stop)
        resumed.load_state_dict(through_json(stream.state_dict()))
        assert resumed.skipped == stream.skipped
        take(resumed, 40 - stop)
        assert resumed.skipped == whole.skipped
