"""Broken and hostile data: every kind is skipped, counted once under its word, and nothing else with it."""

import json
import logging
import math
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from dataset_tools import tar_members
from dataset_tools.__main__ import main
from dataset_tools.data_config import DataConfig
from dataset_tools.inspecting.survey import survey_shard
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.left_out import LeftOut, union
from dataset_tools.packing.prepare import Encoding, prepare
from dataset_tools.sample_refs import Skipped
from dataset_tools.stream import Stream
from tests.hostile.broken_data import BROKEN, SOUND, member, png, sample, tar_bytes, write_shards

ROOT = Path(__file__).parents[2]
WAYS = [
    pytest.param(kind, way, id=f"{kind}{n}") for kind, ways in BROKEN.items() for n, way in enumerate(ways)
]
config = partial(
    DataConfig, image_size_px=16, multiple_px=4, aspect_ratios=["1/1"], batch_size=4, epochs=1, shuffle=8
)


@pytest.fixture(scope="module")
def broken_data(tmp_path_factory):
    """Folder, number of broken ones of each kind, keys of the sound ones."""
    folder = tmp_path_factory.mktemp("broken")
    return folder, *write_shards(folder, num_good=60)


@pytest.fixture
def short_gap(monkeypatch):
    monkeypatch.setattr(tar_members, "MAX_GAP_BYTES", 1 << 20)


def test_every_kind_is_tried_and_explained_to_users(broken_data):
    _, counts, _ = broken_data
    assert set(counts) == set(Kind) - {Kind.FILTERED, Kind.HIDDEN}
    table = (ROOT / "docs/data.md").read_text()
    for kind in Kind:
        assert f"| `{kind.value}` | {kind.meaning} |" in table


@pytest.mark.parametrize("kind, way", WAYS)
def test_training_and_inspect_agree_on_the_kind(tmp_path, kind, way):
    shard = tmp_path / "0.tar"
    shard.write_bytes(
        tar_bytes(
            [*sample("first", png(8, 8, pixels=bytes(200))), *way("bad"), *sample("last", SOUND["jpeg"]())]
        )
    )
    stream = Stream(config(shards=str(tmp_path), num_workers=0))
    seen = {key for batch in stream for key in batch["keys"]}
    assert {"first", "last"} <= seen
    assert stream.skipped == {kind: 1}
    survey = survey_shard(str(shard))
    assert {"first", "last"} <= {picture.key for picture in survey.pictures}
    assert [each.kind for each in survey.broken] == ([] if kind == "no_caption" else [kind])
    assert all("\n" not in each.key + each.reason for each in survey.broken)


@pytest.mark.parametrize("name", SOUND)
def test_odd_pictures_with_a_wrong_ending_are_used(tmp_path, name):
    (tmp_path / "0.tar").write_bytes(tar_bytes(sample("odd", SOUND[name]())))
    stream = Stream(config(shards=str(tmp_path), num_workers=0))
    assert [batch["keys"] for batch in stream] == [["odd"]]
    assert not stream.skipped


@pytest.mark.parametrize(
    "split, world_size, num_workers", [("samples", 2, 0), ("samples", 1, 2), ("shards", 2, 2)]
)
def test_ranks_and_workers_count_each_broken_one_once(broken_data, short_gap, split, world_size, num_workers):
    folder, counts, good = broken_data
    settings = config(shards=str(folder), split=split, num_workers=num_workers)
    streams = [Stream(settings, rank=rank, world_size=world_size) for rank in range(world_size)]
    seen = Counter(key for stream in streams for batch in stream if batch["share"] for key in batch["keys"])
    assert seen == Counter(good)
    assert union(stream.left_out.marks for stream in streams) == counts


def test_inspect_counts_the_same_kinds(broken_data, short_gap, capsys):
    folder, counts, _ = broken_data
    assert (
        main(["inspect", str(folder), "--json", "--workers", "0", "--image-size", "64", "--ratios", "1/1"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    missing = {"no_caption": found["captions"]["missing"]}
    assert found["broken_kinds"] | missing == counts


PICTURE_KINDS = ("empty", "not_picture", "cut_picture", "undecodable", "bomb", "huge", "tiny", "narrow")


@pytest.mark.parametrize("kind, way", [each for each in WAYS if each.values[0] in PICTURE_KINDS])
def test_pack_agrees_on_pictures(tmp_path, kind, way):
    file = tmp_path / "a.png"
    file.write_bytes(way("bad")[0][1])
    problem = prepare(file, Encoding()).problem
    assert isinstance(problem, UnusableError) and problem.kind is Kind(kind)


def test_pack_names_the_kind_of_what_it_leaves_out(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    files = {"good": b"fine", "long": b"word " * 20_000, "latin": b"caf\xe9", "half": b"a\0b"}
    for name, text in files.items():
        (photos / f"{name}.png").write_bytes(SOUND["jpeg"]())
        (photos / f"{name}.txt").write_bytes(text)
    (photos / "alone.txt").write_text("x")
    (photos / "link.png").symlink_to("nowhere")
    (photos / ".hidden.png").write_bytes(b"")
    assert main(["pack", str(photos), str(out), "--workers", "0"]) == 0
    rows = [line.split(",")[:2] for line in (out / "report.csv").read_text().splitlines()[1:]]
    assert dict(rows) == {
        "long.png": "long_caption",
        "latin.png": "encoding",
        "half.png": "encoding",
        "alone.txt": "no_picture",
        "link.png": "link",
        ".hidden.png": "hidden",
    }


def test_limits_can_be_raised(tmp_path):
    (tmp_path / "0.tar").write_bytes(tar_bytes(sample("large", png(1200, 1000, pixels=bytes(3601 * 1000)))))
    for most, expected in ((1.0, {"bomb": 1}), (2.0, {})):
        stream = Stream(config(shards=str(tmp_path), num_workers=0, max_megapixels=most, epochs=1))
        try:
            list(stream)
        except ValueError as error:
            assert "1 bomb" in str(error)
        assert stream.skipped == expected


def test_the_log_names_only_the_first_of_a_kind(caplog):
    left_out = LeftOut()
    for number in range(250):
        left_out.note(Skipped(Kind.EMPTY, f"s.tar:{number}", "empty"))
        left_out.note(Skipped(Kind.EMPTY, f"s.tar:{number}", "empty"))
    assert left_out.counts() == {"empty": 250}
    assert len(caplog.records) == 101 and "not named" in caplog.records[-1].getMessage()
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_pipes_and_devices_are_no_shards(tmp_path):
    os.mkfifo(tmp_path / "0.tar")
    (tmp_path / "1.tar").symlink_to("/dev/zero")
    (tmp_path / "2.tar").write_bytes(tar_bytes(sample("good", SOUND["jpeg"]())))
    stream = Stream(config(shards=str(tmp_path), num_workers=0))
    assert [batch["keys"] for batch in stream] == [["good"]]
    assert stream.skipped == {"unreachable": 2}


def test_headers_and_chains_without_end_are_given_up(tmp_path):
    """What tarfile would read into memory, or follow, without a limit."""
    long = member("././@LongLink", bytes(2 << 20), kind=b"L")
    chain = [member("././@LongLink", b"x", kind=b"L")] * 2000
    sparse = [member("a.png", kind=b"S")]
    for number, members in enumerate(([long], chain, sparse)):
        shard = tmp_path / f"{number}.tar"
        shard.write_bytes(tar_bytes([*members, *sample("after", SOUND["jpeg"]())]))
        survey = survey_shard(str(shard))
        assert survey.broken and survey.broken[0].kind == "damaged"


def test_a_training_on_broken_data_finishes_and_its_record_counts_them(tmp_path):
    """Two ranks with two workers each; 30 % of what there is cannot be used."""
    counts, good = write_shards(tmp_path / "data", num_good=130)
    assert sum(counts.values()) >= 0.3 * (sum(counts.values()) + len(good))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "train",
    ]
    settings = {
        "experiment": "tiny/stage_a",
        "parallel": "ddp",
        "data.shards": tmp_path / "data",
        "data.epochs": 1,
        "data.missing_caption": "skip",
        "data.batch_size": 4,
        "data.num_workers": 2,
        "data.image_size_px": 32,
        "run.num_steps": 1000,
        "run.sample_every": 0,
        "run.device": "cpu",
        "run.dir": tmp_path / "run",
    }
    command = [*launch, *(f"{key}={value}" for key, value in settings.items())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (start,) = json.loads((tmp_path / "run/run.json").read_text())["starts"]
    assert start["left_out"] == counts
    assert math.isfinite(start["loss"]) and start["step"] * 8 >= len(good)
