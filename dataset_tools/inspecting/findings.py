"""From a survey of shards to the figures that `inspect` shows, as plain data."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dataset_tools.buckets import Buckets, cover
from dataset_tools.inspecting.duplicates import groups_of_equals, groups_of_similar
from dataset_tools.inspecting.survey import Picture, ShardSurvey

LONG_CAPTION_WORDS = 50
"""Longer captions are likely to exceed the text encoder's 77 tokens, the rest of which is cut off."""


def findings(surveys: Sequence[ShardSurvey], buckets: Buckets) -> dict[str, Any]:
    """Sum up what was found. All values are plain data; lengths in px, shares from 0 to 1."""
    pictures = [picture for survey in surveys for picture in survey.pictures]
    all_broken = [broken for survey in surveys for broken in survey.broken]
    return {
        "shards": len(surveys),
        "samples": len(pictures),
        "bytes": sum(picture.num_bytes for picture in pictures),
        "broken_kinds": dict(Counter(broken.kind.value for broken in all_broken).most_common()),
        "broken": [broken._asdict() for broken in all_broken],
        "formats": dict(Counter(picture.ext for picture in pictures).most_common()),
        "width_px": _spread([picture.width_px for picture in pictures]),
        "height_px": _spread([picture.height_px for picture in pictures]),
        "aspect_ratio": _spread([picture.width_px / picture.height_px for picture in pictures]),
        "buckets": bucket_rows(pictures, buckets),
        "captions": _caption_facts(pictures),
        "duplicates": _duplicates(pictures),
    }


def bucket_rows(pictures: Sequence[Picture], buckets: Buckets) -> list[dict[str, Any]]:
    """Say for each bucket that is used how many pictures go there and what that does to them.

    cropped: share of the picture's area that is cut off. enlarged: pictures smaller than the bucket.
    """
    members: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for picture in pictures:
        size = (picture.height_px, picture.width_px)
        bucket = buckets.nearest(*size)
        covering = cover(size, bucket)
        cropped = 1 - (bucket[0] * bucket[1]) / (covering[0] * covering[1])
        members.setdefault(bucket, []).append((cropped, covering[0] / size[0]))
    rows = []
    for (height, width), changes in sorted(members.items(), key=lambda item: item[0][1] / item[0][0]):
        cropped, scales = np.array(changes).T
        rows.append(
            {
                "width_px": width,
                "height_px": height,
                "pictures": len(changes),
                "mean_cropped": float(cropped.mean()),
                "max_cropped": float(cropped.max()),
                "enlarged": int((scales > 1).sum()),
                "max_scale": float(scales.max()),
            }
        )
    return rows


def caption_words(picture: Picture) -> int:
    """Count the words of a picture's caption; none when it has no caption."""
    return len((picture.caption or "").split())


def _caption_facts(pictures: Sequence[Picture]) -> dict[str, Any]:
    words = [caption_words(picture) for picture in pictures if picture.caption]
    return {
        "missing": sum(picture.caption is None for picture in pictures),
        "empty": sum(picture.caption == "" for picture in pictures),
        "different": len({picture.caption for picture in pictures if picture.caption}),
        "words": _spread(words),
        "long": sum(count > LONG_CAPTION_WORDS for count in words),
    }


def _duplicates(pictures: Sequence[Picture]) -> dict[str, list[list[str]]]:
    """List the pictures that are there more than once, as shard:key."""
    identical = groups_of_equals(picture.digest for picture in pictures)
    repeats = {position for group in identical for position in group[1:]}
    distinct = [position for position in range(len(pictures)) if position not in repeats]
    similar = groups_of_similar([pictures[position].signature for position in distinct])
    return {
        "keys": _named(pictures, groups_of_equals(picture.key for picture in pictures)),
        "identical": _named(pictures, identical),
        "similar": _named(pictures, [[distinct[i] for i in group] for group in similar]),
    }


def _named(pictures: Sequence[Picture], groups: list[list[int]]) -> list[list[str]]:
    return [[f"{pictures[i].shard}:{pictures[i].key}" for i in group] for group in groups]


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Return the least, middle and greatest value; None when there are none."""
    if not values:
        return None
    low, middle, high = np.quantile(values, [0, 0.5, 1]).tolist()
    return {"min": low, "median": middle, "max": high}
