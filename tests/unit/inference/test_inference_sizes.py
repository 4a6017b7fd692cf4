"""Sizes that are asked for and sizes that follow."""

import pytest

from inference.sizes import Size, picture_size, same_area


def test_nothing_asked_for_takes_the_default() -> None:
    assert picture_size(None, None, Size(64, 96)) == Size(64, 96)


def test_both_sides_asked_for_are_taken_as_they_are() -> None:
    assert picture_size(333, 777, Size(64, 64)) == Size(333, 777)


def test_one_side_keeps_the_proportions_of_the_default() -> None:
    assert picture_size(100, None, Size(200, 300)) == Size(100, 150)
    assert picture_size(None, 150, Size(200, 300)) == Size(100, 150)


@pytest.mark.parametrize(
    ("height", "width", "named"),
    [(0, 64, "height_px"), (64, -8, "width_px"), (64, 100_000, "width_px"), (7, 64, "height_px")],
)
def test_impossible_sizes_are_named_with_what_was_expected(height: int, width: int, named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}: expected 16 to 16384, found"):
        picture_size(height, width, Size(64, 64))


def test_same_area_keeps_proportions() -> None:
    assert same_area(Size(300, 1200), 64) == Size(32, 128)
    assert same_area(Size(10, 10), 64) == Size(64, 64)
