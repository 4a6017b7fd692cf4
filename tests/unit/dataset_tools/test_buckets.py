"""Laws of the aspect-ratio buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_tools.buckets import RELEASED_RATIOS, Batcher, Buckets, cover, parse_ratio

sides = st.integers(1, 5000)


def test_sizes_are_multiples_and_never_exceed_the_area():
    buckets = Buckets(768**2)
    assert buckets.sizes[0] == (768, 768)
    for ratio, (height, width) in zip(buckets.ratios, buckets.sizes, strict=True):
        assert height % 32 == width % 32 == 0
        assert 0.85 * 768**2 < height * width <= 768**2
        assert width / height == pytest.approx(ratio, rel=0.1)


def test_inverses_are_added_once_and_the_callers_list_is_left_alone():
    ratios = ["1/1", "3/4", "4/3", "1/2"]
    buckets = Buckets(64**2, ratios, 8)
    assert buckets.ratios == pytest.approx([1, 3 / 4, 4 / 3, 1 / 2, 2])
    assert ratios == ["1/1", "3/4", "4/3", "1/2"]
    assert len(Buckets(64**2, ratios, 8, with_inverses=False).sizes) == 4
    assert len(Buckets(768**2).sizes) == 2 * len(RELEASED_RATIOS) - 1


def test_nearest_picks_the_shape_most_alike():
    buckets = Buckets(768**2)
    assert buckets.nearest(1000, 1000) == (768, 768)
    assert buckets.nearest(1600, 900) == (1024, 576)
    assert buckets.nearest(900, 1600) == (576, 1024)
    assert buckets.nearest(100, 5000) == (288, 1856)


@given(sides, sides, sides, sides)
def test_cover_is_the_smallest_size_of_the_same_shape_that_covers(height, width, bucket_height, bucket_width):
    new_height, new_width = cover((height, width), (bucket_height, bucket_width))
    assert new_height >= bucket_height and new_width >= bucket_width
    short, new_short = min(height, width), min(new_height, new_width)
    assert max(new_height, new_width) == new_short * max(height, width) // short
    smaller = new_short - 1
    assert smaller * height // short < bucket_height or smaller * width // short < bucket_width


def test_cover_does_not_enlarge_a_lying_picture_in_a_standing_bucket_more_than_needed():
    assert cover((100, 1000), (64, 32)) == (64, 640)


@pytest.mark.parametrize(("text", "value"), [("3/4", 0.75), ("1.5", 1.5), (2, 2.0), ("9/16", 9 / 16)])
def test_ratios_are_numbers_or_fractions(text, value):
    assert parse_ratio(text) == value


@pytest.mark.parametrize("text", ["4:3", "1/0", "0", "1e999", "-1/2", "__import__('os')", ""])
def test_a_bad_ratio_is_named(text):
    with pytest.raises(ValueError, match=r"data.aspect_ratios: .*width/height"):
        parse_ratio(text)


def test_impossible_buckets_are_refused():
    with pytest.raises(ValueError, match="aspect_ratios: empty"):
        Buckets(64**2, [])
    with pytest.raises(ValueError, match="0.01 leaves no pixels in multiples of 32 px"):
        Buckets(64**2, ["1/1", "1/100"])


def test_a_batch_leaves_when_its_bucket_is_full_and_the_rest_waits():
    batcher = Batcher([(8, 8), (4, 16)], 2)
    for bucket, item in [((4, 16), "a"), ((8, 8), "b"), ((4, 16), "c"), ((8, 8), "d"), ((8, 8), "e")]:
        batcher.add(bucket, item)
    assert batcher.pop() == ((8, 8), ["b", "d"])
    assert batcher.pop() == ((4, 16), ["a", "c"])
    assert batcher.pop() is None
    assert batcher.waiting == {(8, 8): ["e"], (4, 16): []}
