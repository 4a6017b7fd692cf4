"""Several sources are mixed by weight; drawing with replacement has no epochs."""

import itertools
import json
from collections import Counter
from functools import partial

import pytest

from dataset_tools.data_config import SourceConfig
from dataset_tools.fetch import ShardReader
from dataset_tools.sample_refs import ShardIndexer
from dataset_tools.stream import Stream
from dataset_tools.walker import Walker
from tests.unit.dataset_tools import stream_cases
from tests.unit.dataset_tools.stream_cases import keys_of, take

SIZES = [(16, 16), (32, 16), (15, 17)]
WEIGHTS = {"a": 3.0, "b": 1.0, "c": 0.5}
COUNTS = {"a": [3, 2, 4, 3], "b": [6, 6, 6, 7], "c": [2, 1, 2, 2]}
config = partial(stream_cases.config, random_ratio=0.2, batch_size=4)


@pytest.fixture
def sources(make_shards, tmp_path):
    """Three data sets, the smallest of which has the largest weight but one."""
    made = []
    for name, counts in COUNTS.items():
        folder = make_shards(counts, SIZES)
        folder.rename(tmp_path / name)
        made.append(SourceConfig(str(tmp_path / name), WEIGHTS[name], name))
    return made


def mixed(sources, **changes):
    return config("", **{"shards": None, "sources": sources} | changes)


def test_after_any_number_of_samples_each_source_has_its_share(sources):
    settings = mixed(sources)
    indexer = ShardIndexer(settings, 0, ShardReader(), print)
    stream = Stream(settings)
    walker = Walker(indexer, stream.sources, 1)
    for number, _ in enumerate(itertools.islice(walker.batches(), 2000), start=1):
        for taken, weight in zip(walker.taken, WEIGHTS.values(), strict=True):
            assert abs(taken - number * weight / 4.5) < 1
    assert walker.taken == [1333, 445, 222]


def test_each_source_goes_through_epochs_of_its_own(sources):
    batches = take(Stream(mixed(sources)), 200)
    seen = {name: Counter() for name in WEIGHTS}
    for batch in batches:
        for source, key in zip(batch["sources"], batch["keys"], strict=True):
            seen[source][key] += 1
    for name, counts in COUNTS.items():
        assert len(seen[name]) == sum(counts)
        assert max(seen[name].values()) - min(seen[name].values()) <= 2  # one epoch begun, one row waiting
    assert any(len(set(batch["sources"])) > 1 for batch in batches)


@pytest.mark.parametrize("split", ["samples", "shards"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_mix_resumes_exactly_and_counts_what_was_taken(sources, split, num_workers):
    make = partial(Stream, mixed(sources, split=split, num_workers=num_workers), rank=1, world_size=2)
    whole = take(make(), 60)
    for stop in (7, 52):
        stream, resumed = make(), make()
        take(stream, stop)
        resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
        assert keys_of(take(resumed, 8)) == keys_of(whole[stop : stop + 8])
        expected = Counter(name for batch in whole[: stop + 8] for name in batch["sources"])
        assert resumed.taken == expected


def test_with_another_weight_it_goes_on_with_the_next_epoch(sources, caplog):
    stream = Stream(mixed(sources))
    take(stream, 30)
    sources[0].weight = 5.0
    resumed = Stream(mixed(sources))
    resumed.load_state_dict(stream.state_dict())
    take(resumed, 1)
    assert "['shards'] changed" in caplog.text


def test_a_source_with_too_few_shards_or_nothing_usable_is_named(sources, tmp_path):
    with pytest.raises(ValueError, match="split=shards: 4 shards of a for 5 ranks x 1 workers"):
        Stream(mixed(sources, split="shards"), world_size=5)
    for shard in (tmp_path / "b").glob("*.tar"):
        shard.write_bytes(b"")
    with pytest.raises(ValueError, match=r"data\.sources: nothing usable in .*/b: left out: "):
        take(Stream(mixed(sources)), 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shards": "somewhere"}, r"data\.sources: given besides data\.shards; .*data\.shards=null"),
        ({"epochs": 2}, r"data\.epochs: has no meaning with data\.sources"),
        ({"sources": [SourceConfig("a", 0.0)]}, r"data\.sources\.weight: expected a number above 0, found 0"),
        ({"sources": [SourceConfig("a"), SourceConfig("a")]}, r"data\.sources: expected a name of its own"),
        ({"sources": [SourceConfig("nowhere")]}, r"data\.sources: no \.tar at nowhere"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_line(sources, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        Stream(config("", **{"shards": None, "sources": sources} | changes))
    assert "\n" not in str(caught.value)


# with replacement


def rows(batches):
    return [key for batch in batches for key in batch["keys"]]


@pytest.mark.parametrize("split", ["samples", "shards"])
def test_resampling_draws_shards_and_samples_with_replacement(make_shards, split):
    settings = config(make_shards([10] * 4), resample=True, split=split, random_ratio=0.0)
    ranks = [rows(take(Stream(settings, rank=rank, world_size=2), 200)) for rank in range(2)]
    for seen in ranks:
        assert len(set(seen[:20])) < 20  # of at least 20 samples
    assert ranks[0] != ranks[1]
    counts = Counter(ranks[0] + ranks[1])
    assert len(counts) == 40 and max(counts.values()) < 4 * min(counts.values())  # 1600 draws


def test_resampling_needs_no_shard_for_every_worker(make_shards):
    settings = config(make_shards([10]), resample=True)
    ranks = [Stream(settings, rank=rank, world_size=3) for rank in range(3)]
    assert not any(stream.by_samples for stream in ranks)
    assert len({tuple(rows(take(stream, 9))) for stream in ranks}) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resampling_is_the_same_for_a_seed_and_resumes_exactly(make_shards, num_workers):
    folder = make_shards([10] * 4, SIZES)
    settings = config(folder, resample=True, num_workers=num_workers, crop="random", flip=0.5)
    whole = keys_of(take(Stream(settings, seed=1), 50))
    assert whole != keys_of(take(Stream(settings, seed=2), 50))
    for stop in (3, 41):
        stream, resumed = Stream(settings, seed=1), Stream(settings, seed=1)
        take(stream, stop)
        resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
        assert keys_of(take(resumed, 9)) == whole[stop : stop + 9]


def test_a_sample_drawn_twice_has_two_chances(make_shards):
    settings = config(make_shards([1]), resample=True, batch_size=64, flip=0.5, random_ratio=0.5)
    shapes = {tuple(batch["images"].shape) for batch in take(Stream(settings), 9)}
    assert len(shapes) > 1  # the only sample goes to the bucket that is drawn with it


def test_resampling_with_an_end_is_refused(make_shards):
    with pytest.raises(ValueError, match=r"data\.epochs: has no meaning with data\.resample"):
        Stream(config(make_shards([4]), epochs=1, resample=True))
