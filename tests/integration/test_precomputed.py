"""Training on precomputed latents is training on the pictures that they were made from."""

import json
import os
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset_tools.__main__ import main
from dataset_tools.batches import make_batch
from dataset_tools.fetch import ShardReader
from dataset_tools.latents import packed, unpacked
from dataset_tools.sample_refs import SampleRef, ShardIndexer
from dataset_tools.stream import Stream
from modules.schema import ConfigError
from tests.integration.latents_cases import SEED, losses, opened, pictures, plain, precompute, weights
from train.config import config_from_plain
from train.loop import run
from train.rng import step_rng

NAMES = ("stage_c", "stage_b_frozen_compressor")
STEPS = 10  # within the two epochs that are kept


class Made:
    """Shards of pictures, the networks' files, and a folder for what is made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = weights(folder / "weights")
        self.shards = pictures(folder / "pictures")

    def settings(self, name: str, shards: Path | None = None, **data: Any) -> dict[str, Any]:
        return plain(name, shards or self.shards, self.files, **data)

    def latents(self, name: str, *options: str) -> Path:
        """The folder of a recipe's latents; made at the first call."""
        out = self.folder / "_".join([name, *options])
        if not (out / "index.json").exists():
            assert precompute(self.settings(name), out, "--versions", "2", *options) == 0
        return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("precomputed"))


@pytest.mark.parametrize(
    ("options", "error"),
    [(("--dtype", "fp32"), 1e-6), (("--dtype", "bf16"), 2e-3), (("--compress", "--batch-size", "3"), 2e-3)],
)
@pytest.mark.parametrize("name", NAMES)
def test_losses_equal_those_on_pictures(made: Made, name: str, options: tuple, error: float) -> None:
    expected, keys = losses(made.settings(name), STEPS)
    found, again = losses(made.settings(name, made.latents(name, *options)), STEPS)
    assert keys == again
    assert found == pytest.approx(expected, rel=error)
    assert len(set(found)) == STEPS


def test_nothing_that_was_precomputed_is_loaded_and_sheets_are_drawn(made: Made) -> None:
    for name in NAMES:
        recipe, stream = opened(config_from_plain(made.settings(name, made.latents(name))))
        assert recipe.semantic_compressor is None and not recipe.encoders.encoders
        batch = next(iter(stream))
        assert "images" not in batch and ("stage_a_latents" in batch) == (name != "stage_c")
        rows = recipe.sample(batch, step_rng(0, 0, 0, 4))
        assert list(rows) == ["latents", "noised", "predicted", "sampled"]
        assert all(row.shape[:2] == (4, 3) and row.isfinite().all() for row in rows.values())


def test_random_encoders_are_exported_all_the_same(made: Made, tmp_path: Path) -> None:
    recipe, _ = opened(config_from_plain(made.settings("stage_c", made.latents("stage_c"))))
    recipe.export(tmp_path)
    assert (tmp_path / "text_encoder" / "config.json").exists() and (tmp_path / "image_encoder").is_dir()


def test_after_the_last_version_the_first_comes_again(made: Made) -> None:
    folder = made.latents("stage_c")
    config = config_from_plain(made.settings("stage_c", folder)).data
    stream = Stream(config, seed=SEED + 1)  # whose order is another, but not what was seen of pictures
    assert stream.latents is not None
    indexer = ShardIndexer(config, stream.seed, ShardReader(), pytest.fail, stream.latents)
    first, second, third = (indexer.refs(str(folder / "000000.tar"), epoch) for epoch in range(3))
    assert [ref.bucket for ref in first] == [ref.bucket for ref in third] != [ref.bucket for ref in second]
    assert [ref.caption for ref in first] != [ref.caption for ref in third]

    def latents(ref: SampleRef) -> torch.Tensor:
        batch = make_batch([ref], range(1), config, 0, indexer.reader, pytest.fail, None, stream.latents)
        assert batch is not None
        return batch["latents"]

    read = [[latents(ref) for ref in refs] for refs in (first, second, third)]
    assert all(map(torch.equal, read[0], read[2])) and not all(map(torch.equal, read[0], read[1]))


def wrapped(made: Made, recipe: str, shards: Path | None) -> dict[str, Any]:
    """The settings of a recipe around Stage C."""
    settings = made.settings("stage_c", shards)
    settings["recipe"] = {"name": recipe, "base": settings["recipe"]}
    settings["model"]["stage_c"] = {**settings["model"]["stage_c"], "allow_random": True}
    if recipe == "lcm":
        settings["recipe"]["base"]["sampling"] = {"steps": 2, "shift": 2.0}
    if recipe == "ip_adapter":
        settings["model"]["ip_adapter"] = {"config": {"c_image": 16, "image_proj": {"name": "pooled"}}}
    return settings


@pytest.mark.parametrize("recipe", ["lora", "lcm", "ip_adapter"])
def test_recipes_that_wrap_learn_from_latents(made: Made, recipe: str) -> None:
    expected, _ = losses(wrapped(made, recipe, None), 2)
    found, _ = losses(wrapped(made, recipe, made.latents("stage_c", "--dtype", "fp32")), 2)
    assert found == pytest.approx(expected, rel=1e-5)


def test_tokens_that_learn_keep_the_text_encoder(made: Made) -> None:
    settings = wrapped(made, "lora", made.latents("stage_c"))
    settings["recipe"]["tokens"] = {"[me]": "red"}
    recipe, stream = opened(config_from_plain(settings))
    assert list(recipe.base.encoders.encoders) == ["text_encoder"]
    assert "text_tokens" not in next(iter(stream))


@pytest.mark.parametrize("recipe", ["controlnet", "ip_adapter"])
def test_recipes_that_wrap_refuse_latents_where_they_need_pixels(made: Made, recipe: str) -> None:
    settings = wrapped(made, recipe, made.latents("stage_c"))
    if recipe == "controlnet":
        settings["data"]["control"] = {"name": "canny", "size_px": 32}
        message = "data.control: control pictures are made of pixels"
    else:
        settings["model"]["ip_adapter"]["config"]["image_proj"]["name"] = "patches"
        message = "image_proj.name: expected pooled with the latents in .*, found patches"
    with pytest.raises(ConfigError, match=message):
        opened(config_from_plain(settings))


def refusal(made: Made, name: str, latents: Path, change: dict[str, Any]) -> str:
    settings = made.settings(name, latents)
    for group, entries in change.items():
        settings[group] = {**settings[group], **entries}
    with pytest.raises((ConfigError, ValueError)) as caught:
        opened(config_from_plain(settings))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stage_a", {}, "data.shards: .* stage_a learns from pixels"),
        ("previewer", {}, "data.shards: .* previewer learns from pixels"),
        ("stage_c", {"data": {"crop": "center"}}, "data.crop: expected 'random'.*found 'center'"),
        ("stage_c", {"data": {"image_size_px": 64}}, "data.image_size_px: expected 32.*found 64"),
        ("stage_c", {"data": {"aspect_ratios": ["1/1"]}}, "data.aspect_ratios: expected"),
        ("stage_c", {"data": {"caption": "short"}}, "data.caption: expected a field .*txt, long.*'short'"),
        ("stage_c", {"recipe": {"compressor_scale": 0.5}}, "recipe.compressor_scale: expected 1,.*found 0.5"),
        (
            "stage_c",
            {"model": {"semantic_compressor": {"weights": "STAGE_A"}}},
            "model.semantic_compressor: ",
        ),
        ("stage_b_frozen_compressor", {}, "hold nothing of model.stage_a"),
        ("stage_b_frozen_compressor", {"recipe": {"random_scale": [0.5, 1.0]}}, "recipe.random_scale"),
    ],
)
def test_latents_that_do_not_fit_are_refused_in_a_line(
    made: Made, name: str, change: dict[str, Any], message: str
) -> None:
    if "model" in change:
        change = {"model": {"semantic_compressor": {"weights": made.files["stage_a"]}}}
    if name == "stage_b_frozen_compressor":
        change = {**change, "recipe": {"compressor_scale": 1.0, **change.get("recipe", {})}}
    found = refusal(made, name, made.latents("stage_c"), change)
    assert re.search(message, found) and "\n" not in found


def test_pictures_and_latents_do_not_mix(made: Made) -> None:
    shards = [str(made.shards), str(made.latents("stage_c"))]
    with pytest.raises(ConfigError, match="holds precomputed latents, .*pictures does not"):
        Stream(config_from_plain(made.settings("stage_c", data={}) | {"data": {"shards": shards}}).data)


def test_a_killed_run_goes_on_and_two_processes_make_what_one_makes(made: Made, tmp_path: Path) -> None:
    """Real processes, killed with SIGKILL after a shard, then two at once for the rest."""
    expected, out = made.latents("stage_c"), tmp_path / "out"
    config = expected.with_suffix(".yaml")
    command = [sys.executable, "-m", "dataset_tools", "precompute", str(made.shards), str(out)]
    command += ["--config", str(config), "--versions", "2", "--batch-size", "16"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline().startswith("000000.tar: 8 samples")
    first.send_signal(signal.SIGKILL)
    first.wait()
    places = [{"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)} for rank in range(2)]
    both = [subprocess.Popen(command, env={**os.environ, **place}) for place in places]
    assert [process.wait(300) for process in both] == [0, 0]
    names = sorted(path.name for path in expected.iterdir() if path.is_file())
    assert names == sorted(path.name for path in out.iterdir() if path.is_file())
    assert len(names) == 6
    assert all((expected / name).read_bytes() == (out / name).read_bytes() for name in names)


def test_what_is_there_already_is_kept_and_other_settings_are_refused(
    made: Made, tmp_path: Path, capsys
) -> None:
    settings, out = made.settings("stage_c"), tmp_path / "out"
    assert precompute(settings, out) == 0
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "000001.tar").unlink()
    capsys.readouterr()
    assert precompute(settings, out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("000001.tar: 8 samples, ") and lines[1].startswith("24 samples in 3 shards")
    assert (out / "000000.tar").stat().st_mtime_ns == times["000000.tar"]
    assert precompute(settings, out, "data.flip=0.25") == 2
    assert "made otherwise: data.flip: 0.5 and 0.25; name another folder" in capsys.readouterr().err
    assert (
        main(["precompute", str(out), str(tmp_path / "again"), "--config", str(out.with_suffix(".yaml"))])
        == 2
    )
    assert "holds precomputed latents" in capsys.readouterr().err


def test_a_filter_that_changed_makes_shards_anew_and_shards_of_another_source_are_named(
    made: Made, tmp_path: Path, capsys
) -> None:
    settings, out = made.settings("stage_c"), tmp_path / "out"
    assert precompute(settings, out) == 0
    settings["data"]["filters"] = [{"field": "width_px", "op": ">", "value": 50}]
    capsys.readouterr()
    assert precompute(settings, out) == 0
    told = capsys.readouterr().out
    assert re.search(r"000000.tar: \d samples, skipped \d filtered, .* 1 of 3", told)
    assert "also holds" not in told
    settings["data"]["shards"] = str(made.shards / "000001.tar")
    assert precompute(settings, out) == 0
    assert f"{out}: also holds 000000.tar (2 in all)" in capsys.readouterr().out


def test_shards_come_from_commands_that_are_allowed_and_named(made: Made, tmp_path: Path, capsys) -> None:
    settings, cache = made.settings("stage_c"), f"data.cache_dir={tmp_path / 'cache'}"
    settings["data"]["shards"] = f"pipe:cat {made.shards}/000000.tar"
    assert precompute(settings, tmp_path / "out", cache) == 2
    assert "data.allow_commands=true" in capsys.readouterr().err
    assert precompute(settings, tmp_path / "out", cache, "data.allow_commands=true") == 0
    assert (tmp_path / "out" / "000000.tar").exists()
    settings["data"]["shards"] += " -"
    assert precompute(settings, tmp_path / "out", cache, "data.allow_commands=true") == 2
    assert "SRC: 000000.tar -: latents are stored under their shard's name" in capsys.readouterr().err


def test_broken_pictures_are_left_out_and_counted(made: Made, tmp_path: Path, capsys) -> None:
    shard = tmp_path / "broken" / "000000.tar"
    shard.parent.mkdir()
    data = bytearray((made.shards / "000000.tar").read_bytes())
    at = data.index(b"IDAT", data.index(b"IDAT") + 4)
    data[at : at + 40] = b"x" * 40
    shard.write_bytes(data)
    settings = made.settings("stage_c", shard.parent)
    assert precompute(settings, tmp_path / "out") == 0
    assert "000000.tar: 7 samples, skipped 1 " in capsys.readouterr().out
    stream = Stream(config_from_plain(made.settings("stage_c", tmp_path / "out")).data, seed=SEED)
    assert stream.latents is not None and next(iter(stream))["latents"].shape[0] == 4


def test_latents_that_are_not_finite_or_of_no_size_or_of_too_large_a_picture_are_skipped(
    made: Made, tmp_path: Path
) -> None:
    source, folder = made.latents("stage_c"), tmp_path / "odd"
    folder.mkdir()
    (folder / "precomputed.json").write_bytes((source / "precomputed.json").read_bytes())
    (folder / "empty.safetensors").write_bytes((source / "empty.safetensors").read_bytes())
    data = bytearray((source / "000001.tar").read_bytes())
    start = data.index(b'{"__metadata__"')
    end = start + int.from_bytes(data[start - 8 : start], "little")
    data[end : end + 2] = b"\xff\x7f"  # NaN
    first, second = (match.start() for match in list(re.finditer(rb'"width_px": ', data))[1:3])
    data[first : first + 12] = b'"width_??": '
    data[second : second + 14] = b'"width_px": ""'
    (folder / "000001.tar").write_bytes(data)
    settings = made.settings("stage_c", folder, epochs=1, alternative_share=0.0)
    stream = Stream(config_from_plain(settings).data, seed=SEED)
    assert sum(len(batch["keys"]) for batch in stream) == 5
    assert stream.skipped == {"latents": 3}
    settings["data"]["max_megapixels"] = 0.001
    with pytest.raises(ValueError, match="6 huge"):
        next(iter(Stream(config_from_plain(settings).data, seed=SEED)))


def test_damaged_latents_are_skipped_and_counted(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in made.latents("stage_c").iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    data = bytearray((folder / "000001.tar").read_bytes())
    for number, damage in ((0, b"\xff" * 8), (3, b"\0" * 8)):  # lengths of headers
        at = -1
        for _ in range(number + 1):
            at = data.index(b'{"__metadata__"', at + 1)
        data[at - 8 : at] = damage
    (folder / "000001.tar").write_bytes(data)
    stream = Stream(config_from_plain(made.settings("stage_c", folder)).data, seed=SEED)
    for _, batch in zip(range(12), stream, strict=False):
        assert batch["latents"].isfinite().all()
    assert stream.skipped == {"latents": 2}


@pytest.mark.parametrize(
    "change",
    [
        "[1]",
        "{",
        {"versions": 0},
        {"dtype": "pickle"},
        {"networks": {"stage_a": {"identity": "x", "shape": [-4]}}},
        {"networks": {"mystery": {"identity": "x", "shape": [4]}}},
        {"surprise": 1},
    ],
)
def test_facts_that_lie_are_one_line(made: Made, tmp_path: Path, change: Any) -> None:
    facts = json.loads((made.latents("stage_c") / "precomputed.json").read_text())
    (tmp_path / "precomputed.json").write_text(
        change if isinstance(change, str) else json.dumps(facts | change)
    )
    (tmp_path / "0.tar").write_bytes((made.latents("stage_c") / "000000.tar").read_bytes())
    with pytest.raises(ConfigError, match=r"precomputed.json") as caught:
        Stream(config_from_plain(made.settings("stage_c", tmp_path)).data)
    assert "\n" not in str(caught.value)


def test_a_whole_run_reads_latents_draws_sheets_and_goes_on(made: Made, tmp_path: Path) -> None:
    settings = made.settings("stage_c", made.latents("stage_c"), num_workers=2)
    settings["run"] |= {"dir": str(tmp_path / "run"), "num_steps": 2, "sample_every": 2, "device": "cpu"}
    first = run(config_from_plain(settings))
    settings["run"]["num_steps"] = 4
    second = run(config_from_plain(settings))
    assert (first.step, second.step) == (2, 4) and second.loss > 0
    assert (tmp_path / "run" / "samples" / "step_00000004.png").exists()
    assert (tmp_path / "run" / "weights" / "stage_c.safetensors").exists()


def test_inspect_says_what_latents_were_made_of(made: Made, tmp_path: Path, capsys) -> None:
    folder = made.latents("stage_c", "--compress", "--batch-size", "3")
    capsys.readouterr()
    assert main(["inspect", str(folder), "--json", "--workers", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 24 and not found["broken"]


def test_compressed_bytes_come_back_and_cannot_grow_out_of_measure(monkeypatch) -> None:
    for data in (b"", b"a", bytes(range(256)) * 3 + b"odd"):
        assert unpacked(packed(data)) == data
    many = torch.randn(50_000).bfloat16().view(torch.uint8).numpy().tobytes()
    assert len(packed(many)) < 0.75 * len(many)
    monkeypatch.setattr("dataset_tools.latents.MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(ValueError, match="grow to more than 1000 bytes"):
        unpacked(packed(many))
    for bad in (zlib.compress(bytes(10_000_000)), packed(many)[:-5], b"not compressed"):
        with pytest.raises(ValueError, match="latents"):
            unpacked(bad)
