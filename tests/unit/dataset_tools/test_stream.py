"""What the stream yields, in which order, and how ranks and workers share it."""

import itertools
import logging
import multiprocessing
from collections import Counter

import pytest
import torch

from dataset_tools.batches import Lane, WorkerDataset
from dataset_tools.course import Order, Share
from dataset_tools.fetch import ShardReader
from dataset_tools.filters import Filter
from dataset_tools.records import read_samples
from dataset_tools.sample_refs import ShardIndexer
from dataset_tools.stream import Stream
from dataset_tools.walker import Walker
from dataset_tools.workers import Workers
from tests.unit.dataset_tools.stream_cases import config, keys_of, take

SIZES = [(16, 16), (32, 16), (15, 17), (16, 32), (40, 18)]


def test_a_batch_holds_pictures_of_one_size_and_what_belongs_to_them(make_shards):
    stream = Stream(config(make_shards([20], SIZES)))
    for batch in take(stream, 10):
        assert batch["images"].dtype == torch.uint8
        assert batch["images"].shape[:2] == (4, 3)
        assert tuple(batch["images"].shape[2:]) in {(16, 16), (8, 20), (20, 8)}
        for image, caption, key in zip(*batch.values(), strict=True):
            number = int(key)
            assert int(caption) == number
            assert image.unique().tolist() == sorted({number, 255 - number, 7})
            assert image[0].unique().item() == number


def test_sizes_come_from_the_header_when_no_fact_names_them(make_shards):
    known = take(Stream(config(make_shards([20], SIZES))), 8)
    read = take(Stream(config(make_shards([20], SIZES, with_facts=False))), 8)
    assert keys_of(known) == keys_of(read)
    assert [batch["images"].shape for batch in known] == [batch["images"].shape for batch in read]


def test_the_places_of_pictures_are_read_without_their_bytes(make_shards):
    shard = make_shards([9], SIZES) / "000000.tar"
    with shard.open("rb") as file:
        whole = list(read_samples(file, "s", print))
        file.seek(0)
        places = list(read_samples(file, "s", print, with_pictures=False))
    assert [sample._replace(image_bytes=b"") for sample in whole] == places
    content = shard.read_bytes()
    for sample, place in zip(whole, places, strict=True):
        begin = place.image_offset
        assert content[begin : begin + place.image_num_bytes] == sample.image_bytes


def test_every_epoch_holds_each_sample_once_though_buckets_end_half_full(make_shards):
    """23 samples in three buckets, batches of 4: what does not fill a batch waits for the next epoch."""
    stream = Stream(config(make_shards([7, 7, 9], SIZES)))
    seen = Counter(key for batch in take(stream, 230) for key in batch["keys"])
    assert set(seen) == {f"{n:03}" for n in range(23)}
    assert max(seen.values()) - min(seen.values()) <= 1  # 920 rows = 40 epochs of 23, but for those waiting


def test_epochs_have_different_orders_and_a_seed_always_the_same(make_shards):
    folder = make_shards([8, 8, 8])
    first, again, other = (keys_of(take(Stream(config(folder), seed=seed), 12)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(sum(first[:6], [])) == sorted(sum(first[6:], []))  # two epochs
    assert first[:6] != first[6:]


def test_without_shuffling_the_order_is_that_of_the_shards(make_shards):
    stream = Stream(config(make_shards([5, 3]), shuffle=0))
    numbers = [int(key) for batch in take(stream, 4) for key in batch["keys"]]
    assert numbers == [*range(8), *range(8)]


def test_shuffling_mixes_samples_of_several_shards(make_shards):
    batches = take(Stream(config(make_shards([8] * 6), shuffle=20)), 3)
    shards = {int(key) // 8 for batch in batches for key in batch["keys"]}
    assert len(shards) == 3  # 24 samples in a block, of which 12 were taken


@pytest.mark.parametrize("num_workers", [0, 2])
def test_slices_of_the_ranks_make_up_the_batches_of_one(make_shards, num_workers):
    """By samples, neither the number of ranks nor that of workers changes the global batches."""
    settings = config(make_shards([9, 14], SIZES), split="samples", random_ratio=0.3, crop="random", flip=0.5)
    whole = take(Stream(settings, seed=5), 9)
    settings.batch_size, settings.num_workers = 2, num_workers
    ranks = [take(Stream(settings, rank=rank, world_size=2, seed=5), 9) for rank in range(2)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert batch["keys"] == first["keys"] + second["keys"]
        assert batch["captions"] == first["captions"] + second["captions"]
        assert torch.equal(batch["images"], torch.cat([first["images"], second["images"]]))


def test_shares_of_an_epoch_hold_every_sample_once_and_are_dealt_anew(make_shards):
    folder = make_shards([4, 8, 4, 12, 8])
    settings = config(folder)
    indexer = ShardIndexer(settings, 0, ShardReader(), print)
    sources = Stream(settings).sources
    dealt = [[set() for _ in range(3)] for _ in range(4)]  # by epoch and share
    for share in range(3):
        walker = Walker(indexer, sources, 1, share=Share(share, 3), order=Order(shuffle=1))
        for (ref,) in walker.batches():
            if ref.epoch == len(dealt):
                break
            dealt[ref.epoch][share].add(ref.key)
    for shares in dealt:
        assert sorted(itertools.chain(*shares)) == [f"{n:03}" for n in range(36)]
    assert any(shares != dealt[0] for shares in dealt[1:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_by_shards_a_rank_with_a_small_share_goes_on_for_ever(make_shards, num_workers):
    settings = config(make_shards([4, 40, 4, 4]), split="shards", num_workers=num_workers)
    for rank in range(2):
        assert len(take(Stream(settings, rank=rank, world_size=2), 30)) == 30


def test_auto_reads_by_samples_when_shards_are_too_few_and_says_so(make_shards, caplog):
    caplog.set_level(logging.INFO)
    settings = config(make_shards([8, 8, 8]), num_workers=2)
    assert not Stream(settings).by_samples
    assert not caplog.records
    stream = Stream(settings, rank=0, world_size=2)
    assert stream.by_samples
    assert [record.getMessage() for record in caplog.records] == [
        "data: 3 shards for 2 ranks x 2 workers: all read every shard and decode their own samples"
        " (split=samples)"
    ]
    ranks = [take(Stream(settings, rank=rank, world_size=2), 6) for rank in range(2)]
    seen = Counter(key for batch in sum(ranks, []) for key in batch["keys"])
    assert set(seen.values()) == {2}  # 48 rows are two epochs: nothing repeated, nothing lost


def test_by_shards_needs_a_shard_for_every_worker(make_shards):
    with pytest.raises(ValueError, match=r"split=shards: 2 shards for 2 ranks x 3 workers; use"):
        Stream(config(make_shards([4, 4]), split="shards", num_workers=3), world_size=2)


def test_a_data_set_smaller_than_a_batch_goes_on_into_the_next_epochs(make_shards):
    batch = take(Stream(config(make_shards([3]), batch_size=8)), 1)[0]
    assert Counter(Counter(batch["keys"]).values()) == {3: 2, 2: 1}


def test_filters_leave_out_and_count(make_shards):
    settings = config(
        make_shards([10, 10]), filters=[Filter("parity", "==", "odd"), Filter("number", "<", 15)]
    )
    stream = Stream(settings)
    seen = {int(key) for batch in take(stream, 10) for key in batch["keys"]}
    assert seen == {1, 3, 5, 7, 9, 11, 13}
    assert stream.skipped == {"filtered": 13}


def test_random_ratio_sends_some_pictures_to_any_bucket(make_shards):
    folder = make_shards([200])
    shapes = Counter()
    for batch in take(Stream(config(folder, random_ratio=0.5)), 200):
        shapes[tuple(batch["images"].shape[2:])] += 1
    others = (shapes[(8, 20)] + shapes[(20, 8)]) / shapes.total()
    assert 0.25 < others < 0.42  # half of the pictures, to two of three buckets


def test_alternative_captions_come_with_their_share(make_shards):
    settings = config(make_shards([100]), alternative_caption="parity", alternative_share=0.3)
    captions = Counter(
        c in ("odd", "even") for batch in take(Stream(settings), 100) for c in batch["captions"]
    )
    assert 0.2 < captions[True] / captions.total() < 0.4


def test_a_sample_with_only_one_of_the_fields_uses_that_one(make_tar, make_png, tmp_path):
    picture = make_png(8, 8, (1, 2, 3))
    members = [("a.png", picture), ("a.txt", b"text"), ("b.png", picture), ("b.json", b'{"long": "field"}')]
    make_tar(tmp_path / "x.tar", members)
    settings = config(tmp_path, batch_size=2, alternative_caption="long", alternative_share=0.5)
    for batch in take(Stream(settings), 5):
        assert dict(zip(batch["keys"], batch["captions"], strict=True)) == {"a": "text", "b": "field"}


def test_the_worker_data_set_works_in_a_spawned_process(make_shards):
    """As on Windows: everything that a worker gets is pickled."""
    settings = config(make_shards([12]))
    data = WorkerDataset(settings, Stream(settings).sources, 0, 1, 0, True, [Lane()])
    workers = Workers(data, 1, 2, lambda item: item, multiprocessing.get_context("spawn"))
    items = take(workers, 3)
    workers.close()
    assert [item.batch["keys"] for item in items] == keys_of(take(Stream(settings), 3))


def test_waiting_is_measured(make_shards):
    stream = Stream(config(make_shards([12])))
    assert stream.wait_s == 0
    take(stream, 3)
    assert stream.wait_s > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shards": None}, "data.shards: missing"),
        ({"batch_size": 0}, "data.batch_size: expected at least 1, found 0"),
        ({"num_workers": -1}, "data.num_workers: expected 0 or more, found -1"),
        ({"random_ratio": 1.5}, "data.random_ratio: expected a share from 0 to 1, found 1.5"),
        ({"crop": "centre"}, "data.crop: 'centre' is unknown; did you mean 'center'"),
        ({"split": "sample"}, "data.split: 'sample' is unknown; did you mean 'samples'"),
        ({"missing_caption": "drop"}, "data.missing_caption: 'drop' is unknown"),
        ({"filters": [Filter("a", "~", 1)]}, "data.filters: .*unknown op"),
        ({"aspect_ratios": ["a"]}, "data.aspect_ratios: 'a' is no ratio"),
        ({"image_size_px": 2}, "leaves no pixels"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(make_shards, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        Stream(config(make_shards([1]), **changes))
    assert "\n" not in str(caught.value)
