"""Control pictures from the data workers: made of what the batch shows, and the same in every run."""

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from dataset_tools.stream import Stream
from modules.adapters.filters import build_filter
from tests.unit.dataset_tools import stream_cases
from tests.unit.dataset_tools.pack_cases import save
from tests.unit.dataset_tools.stream_cases import take

INPAINTING = {"name": "inpainting"}
SIZES = [(16, 16), (32, 16), (15, 17), (16, 32), (40, 18)]
config = partial(stream_cases.config, crop="random", flip=0.5, batch_size=2)


@pytest.fixture
def photographs(make_tar, tmp_path) -> Path:
    """Six noisy pictures in a shard, so that crops and flips can be told apart."""
    members = []
    for n in range(6):
        save(tmp_path / "photo.png", seed=n)
        members.append((f"{n}.png", (tmp_path / "photo.png").read_bytes()))
        members.append((f"{n}.txt", b"photo"))
    make_tar(tmp_path / "noisy" / "0.tar", members)
    return tmp_path / "noisy"


def test_the_control_belongs_to_the_cropped_and_flipped_picture(photographs):
    spec = {"name": "canny", "low": 20, "high": 40}
    for batch in take(Stream(config(photographs, control=spec)), 6):
        expected = build_filter(spec)(batch["images"] / 255, [])
        assert batch["control"].dtype == torch.uint8
        assert batch["control"].unique().tolist() == [0, 255]
        assert torch.equal(batch["control"], (expected * 255).byte())


def test_without_a_filter_there_is_no_control(make_shards):
    assert "control" not in take(Stream(config(make_shards([3]))), 1)[0]


def test_chance_is_that_of_seed_epoch_and_sample(make_shards):
    folder = make_shards([8])

    def masks(seed: int, batch_size: int) -> dict[tuple[int, str], torch.Tensor]:
        """Of the first two epochs, by epoch and key."""
        stream = Stream(config(folder, control=INPAINTING, batch_size=batch_size, shuffle=0), seed=seed)
        batches = take(stream, 16 // batch_size)
        rows = [row for batch in batches for row in zip(batch["keys"], batch["control"], strict=True)]
        return {(i // 8, key): control[3] for i, (key, control) in enumerate(rows)}

    ours, others = masks(0, 2), masks(1, 2)
    for name, mask in masks(0, 4).items():
        assert torch.equal(mask, ours[name])  # whatever the batch
    assert not all(torch.equal(ours[0, key], ours[1, key]) for epoch, key in ours if epoch == 0)
    assert not all(torch.equal(ours[name], others[name]) for name in ours)
    assert len({tuple(mask.flatten().tolist()) for mask in ours.values()}) > 12


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_is_exact(make_shards, num_workers):
    settings = config(make_shards([7, 5, 9], SIZES), control=INPAINTING, split="samples")
    whole = take(Stream(settings, seed=1), 20)
    stream = Stream(replace(settings, num_workers=num_workers), seed=1)
    iterator = iter(stream)
    for batch in itertools.islice(iterator, 9):
        assert batch["control"].shape[1] == 4
    state = json.loads(json.dumps(stream.state_dict()))
    iterator.close()
    resumed = Stream(replace(settings, num_workers=num_workers), seed=1)
    resumed.load_state_dict(state)
    for expected, found in zip(whole[9:], take(resumed, 11), strict=True):
        assert expected["keys"] == found["keys"]
        assert torch.equal(expected["control"], found["control"])


def test_ranks_make_the_rows_of_one_batch(make_shards):
    folder = make_shards([9])
    settings = config(folder, control=INPAINTING, split="samples", batch_size=4)
    one = take(Stream(settings), 4)
    two = [take(Stream(replace(settings, batch_size=2), rank=rank, world_size=2), 4) for rank in (0, 1)]
    for i, batch in enumerate(one):
        assert torch.equal(batch["control"], torch.cat([rank[i]["control"] for rank in two]))


@pytest.mark.parametrize("name", ["super_resolution"])
def test_filters_that_need_networks_are_left_to_the_recipe(make_shards, name):
    assert "control" not in take(Stream(config(make_shards([3]), control={"name": name})), 1)[0]


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ({"name": "cany"}, "data.control.name: found 'cany'; did you mean 'canny'"),
        ({"size_px": 3}, "data.control.name: found None; expected one of: brightness, canny"),
        ({"name": "canny", "hig": 3}, "data.control.hig: unknown key; did you mean 'high'"),
        ({"name": "canny", "size_px": 3}, "data.control.size_px: expected at least 8, found 3"),
        ({"name": "inpainting", "area": [0.9, 0.2]}, "data.control.area: expected two shares"),
        ({"name": "brightness", "sigma_px": [0.0, 1.0]}, "data.control.sigma_px: expected two widths"),
    ],
)
def test_a_wrong_filter_is_named_before_anything_is_read(make_shards, control, message):
    with pytest.raises(ValueError, match=message) as caught:
        Stream(config(make_shards([1]), control=control))
    assert "\n" not in str(caught.value)


def test_missing_weights_of_a_filter_are_named_before_anything_is_read(make_shards):
    control = {"name": "edge", "weights": "no/such.safetensors"}
    with pytest.raises(FileNotFoundError, match=r"no/such.safetensors"):
        Stream(config(make_shards([1]), control=control))
