"""Buckets, batches and pixels against the recorded numbers of the published implementation."""

import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dataset_tools.buckets import Batcher, Buckets, cover
from dataset_tools.decode import fit

pytestmark = pytest.mark.oracle

FOLDER = Path(os.environ.get("KASKADE_ORACLE") or Path(__file__).parent.parent / "golden")


def recorded() -> dict[str, dict[str, Any]]:
    """The files that hold bucket cases, told by their content."""
    paths = sorted(FOLDER.rglob("*.json"))
    contents = {str(path.relative_to(FOLDER)): json.loads(path.read_text()) for path in paths}
    return {name: data for name, data in contents.items() if isinstance(data, dict) and "tables" in data}


FILES = recorded()
TABLES = [
    pytest.param(table, id=f"{name}-{table['density']}-{table['factor']}-{table['reverse_list']}")
    for name, data in FILES.items()
    for table in data["tables"]
]
STREAMS = [pytest.param(name, id=name) for name, data in FILES.items() if "stream" in data]


def test_there_are_recorded_cases():
    assert TABLES and STREAMS


def buckets_of(table: dict[str, Any]) -> Buckets:
    """Recorded are the ratios with the inverses already added, so that none may be added again."""
    return Buckets(table["density"], table["ratios_w_over_h"], table["factor"], table["reverse_list"])


@pytest.mark.parametrize("table", TABLES)
def test_sizes_and_ratios(table):
    buckets = buckets_of(table)
    assert buckets.ratios == pytest.approx(table["ratios_w_over_h"])
    assert [list(size) for size in buckets.sizes] == table["sizes_hw"]


@pytest.mark.parametrize("table", TABLES)
def test_chosen_bucket_and_resize(table):
    buckets = buckets_of(table)
    for row in table["rows"]:
        bucket = buckets.nearest(*row["image_hw"])
        resized = cover(tuple(row["image_hw"]), bucket)
        assert list(bucket) == row["bucket_hw"], row
        assert list(resized) == row["resized_hw"], row
        assert min(resized) == row["resize_short_side"], row
        fits = all(new >= old for new, old in zip(resized, bucket, strict=True))
        assert fits == row["crop_fits"], row


@pytest.mark.parametrize("name", STREAMS)
def test_order_and_pixels_of_the_stream(name):
    """The published loader hands over several pictures at once; then full buckets leave in table order."""
    stream = FILES[name]["stream"]
    tensors = load_file((FOLDER / name).with_suffix(".safetensors"))
    buckets = Buckets(stream["density"], stream["ratios"], stream["factor"])
    batcher: Batcher[int] = Batcher(buckets.sizes, stream["batch_size"])
    emitted = []
    sizes = stream["image_sizes_hw"]
    for begin in range(0, len(sizes), stream["loader_batch"]):
        for index in range(begin, min(begin + stream["loader_batch"], len(sizes))):
            batcher.add(buckets.nearest(*sizes[index]), index)
        while full := batcher.pop():
            emitted.append(full)

    assert [indices for _, indices in emitted] == [batch["indices"] for batch in stream["emitted"]]
    shapes = [[len(indices), 3, *bucket] for bucket, indices in emitted]
    assert shapes == [batch["shape"] for batch in stream["emitted"]]
    left = {str(list(bucket)): indices for bucket, indices in batcher.waiting.items() if indices}
    assert left == stream["left_in_buckets"]  # there dropped; here they wait for the next epoch

    compared = 0
    for number, (bucket, indices) in enumerate(emitted):
        if (key := f"batch{number}.images") in tensors:
            pictures = [tensors[f"in.image{index}"] for index in indices]
            images = torch.stack([fit(each, bucket, stream["crop_mode"], Random(0)) for each in pictures])
            torch.testing.assert_close(images, tensors[key], atol=1e-5, rtol=1e-5)
            compared += 1
    assert compared == sum(key.startswith("batch") for key in tensors)


@pytest.mark.parametrize("name", STREAMS)
def test_the_callers_list_of_ratios_stays_as_it_is(name):
    """The published code appends the inverses to it, which the file records."""
    given = list(FILES[name]["stream"]["ratios"])
    assert len(FILES[name]["mutated_ratio_list"]["after_first"]) > len(given)
    ratios = list(given)
    buckets = Buckets(FILES[name]["stream"]["density"], ratios, FILES[name]["stream"]["factor"])
    assert ratios == given
    assert buckets.ratios == pytest.approx(FILES[name]["mutated_ratio_list"]["after_first"])
