"""Writing shards: valid for webdataset, reproducible, within their limits, whole or not there."""

import hashlib
import json
import tarfile
from io import BytesIO

import pytest
from PIL import Image

from dataset_tools.shards import Shard, ShardLimits, ShardWriter, sample_members


def picture(shade: int = 0) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, count=5, limits=None):
    with ShardWriter(folder, limits or ShardLimits()) as writer:
        for n in range(count):
            facts = {"width_px": 20, "height_px": 10, "source": f"ä {n}.png"}
            writer.write(f"{n:06d}", picture(n), "png", f"picture {n} é", facts)
    return sorted(folder.glob("*.tar"))


def test_webdataset_reads_the_shards(tmp_path):
    import webdataset

    shards = write(tmp_path, 5, ShardLimits(max_samples=2))
    dataset = webdataset.WebDataset([str(path) for path in shards], shardshuffle=False, empty_check=False)
    samples = list(dataset.decode("pil").to_tuple("__key__", "png", "txt", "json"))
    assert [s[0] for s in samples] == [f"{n:06d}" for n in range(5)]
    assert samples[3][1].size == (20, 10)
    assert samples[3][2] == "picture 3 é"
    assert samples[3][3] == {"width_px": 20, "height_px": 10, "source": "ä 3.png"}


def test_same_samples_give_the_same_bytes(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with tarfile.open(first[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_index_describes_the_shards(tmp_path):
    shards = write(tmp_path, 5, ShardLimits(max_samples=2))
    index = json.loads((tmp_path / "index.json").read_text())
    assert (index["version"], index["samples"]) == (1, 5)
    assert index["bytes"] == sum(path.stat().st_size for path in shards)
    assert [s["name"] for s in index["shards"]] == [path.name for path in shards]
    assert [s["samples"] for s in index["shards"]] == [2, 2, 1]
    assert index["shards"][0]["sizes"] == {"20x10": 2}
    for path, entry in zip(shards, index["shards"], strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("max_bytes", [10240, 20480, 30720])
def test_shards_stay_within_the_limit_in_bytes(tmp_path, max_bytes):
    shards = write(tmp_path, 40, ShardLimits(max_bytes=max_bytes))
    assert len(shards) > 1
    assert all(path.stat().st_size <= max_bytes for path in shards)
    assert shards[0].stat().st_size == max_bytes  # and are filled up to it


def test_a_sample_larger_than_the_limit_has_a_shard_of_its_own(tmp_path):
    with ShardWriter(tmp_path, ShardLimits(max_bytes=10240)) as writer:
        for n in range(3):
            writer.write(str(n), bytes(50_000), "png", None, {"width_px": 1, "height_px": 1})
    assert len(list(tmp_path.glob("*.tar"))) == 3


def test_an_error_leaves_neither_a_half_shard_nor_an_index(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path) as writer:
        writer.write("a", picture(), "png", "", {"width_px": 1, "height_px": 1})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_smaller_data_set_leaves_no_shard_of_a_larger_one(tmp_path):
    write(tmp_path, 5, ShardLimits(max_samples=1))
    (tmp_path / "000009.tar").write_bytes(b"another's")
    assert [path.name for path in write(tmp_path, 2, ShardLimits(max_samples=1))] == [
        *("000000.tar", "000001.tar"),
        "000009.tar",
    ]


def test_shard_has_its_name_only_when_finished(tmp_path):
    path = tmp_path / "000000.tar"
    shard = Shard(path, ShardLimits())
    shard.add("a", {"png": picture()}, (20, 10))
    assert not path.exists()
    shard.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["000000.tar"]


@pytest.mark.parametrize("keys", [["a.b"], ["a", "a"]])
def test_keys_are_unique_and_without_dots(tmp_path, keys):
    with pytest.raises(ValueError, match="key"), ShardWriter(tmp_path) as writer:
        for key in keys:
            writer.write(key, picture(), "png", "", {"width_px": 1, "height_px": 1})


def test_facts_must_be_plain_data():
    with pytest.raises(ValueError, match="plain data"):
        sample_members(b"", "png", None, {"width_px": 1, "height_px": 1, "x": object()})


def test_no_caption_is_not_an_empty_caption():
    assert "txt" not in sample_members(b"x", "png", None, {})
    assert sample_members(b"x", "png", "", {})["txt"] == b""
