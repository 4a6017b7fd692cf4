"""The command that makes latents: killed, run again, by several processes, of other settings or sources."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dataset_tools.__main__ import main
from dataset_tools.locks import locked
from dataset_tools.stream import Stream
from tests.integration.latents_cases import SEED, Made, precompute
from train.config import config_from_plain


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


def test_places_that_do_not_fit_are_named_before_a_network_is_built(made: Made, tmp_path, capsys) -> None:
    settings, out, file = made.settings("stage_c"), tmp_path / "out", tmp_path / "file"
    file.write_text("x")
    twin = tmp_path / "twin" / "000000.tar"
    twin.parent.mkdir()
    twin.write_bytes(b"x")
    latents = made.latents("stage_c")
    capsys.readouterr()
    for shards, folder, expected in (
        (made.shards, made.shards, f"{made.shards}: SRC and OUT are the same folder"),
        (f"{{{made.shards},{twin.parent}}}/000000.tar", out, "SRC: 2 shards are called 000000.tar; "),
        (made.shards, file, f"{file}: expected a folder for the shards, found a file"),
        (latents, out, f"{latents}/000000.tar: holds precomputed latents"),
    ):
        settings["data"]["shards"] = str(shards)
        config = tmp_path / "settings.yaml"
        config.write_text(yaml.safe_dump(settings))
        arguments = ["--config", str(config), "model.semantic_compressor.weights=nowhere"]
        assert main(["precompute", str(shards), str(folder), *arguments]) == 2
        assert capsys.readouterr().err.startswith(f"error: {expected}")
    assert not out.exists() and not (made.shards / "precomputed.json").exists()


def test_a_shard_that_has_gone_is_named_and_the_others_are_made(made: Made, tmp_path: Path, capsys) -> None:
    shards, out = tmp_path / "shards", tmp_path / "out"
    shutil.copytree(made.shards, shards)
    settings = made.settings("stage_c", shards)
    assert precompute(settings, out) == 0
    (shards / "000000.tar").rename(tmp_path / "gone.tar")
    (out / "000001.tar").unlink()
    settings["data"]["shards"] = f"{shards}/{{000000..000002}}.tar"
    capsys.readouterr()
    assert precompute(settings, out) == 1
    gone, made_anew = capsys.readouterr().out.splitlines()
    assert gone.startswith(f"{shards}/000000.tar: skipped, run again to try it again: ")
    assert made_anew.startswith("000001.tar: 8 samples, ")


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_are_not_at_work_on_the_same_shard(made: Made, tmp_path: Path, capsys) -> None:
    settings, out = made.settings("stage_c"), tmp_path / "out"
    assert precompute(settings, out) == 0
    half = out / "000001.tar.tmp"
    (out / "000001.tar").rename(half)
    capsys.readouterr()
    notes = out / ".precompute"
    with (notes / "000001.tar.lock").open("ab") as file, locked(file):
        assert precompute(settings, out) == 2
    refused = f"error: {out}: another precompute makes 000001.tar there; wait for its end\n"
    assert capsys.readouterr().err == refused and half.exists()
    with (notes / "000000.tar.lock").open("ab") as file, locked(file):  # whose shard is done
        assert precompute(settings, out) == 0


def test_inspect_says_what_latents_were_made_of(made: Made, tmp_path: Path, capsys) -> None:
    folder = made.latents("stage_c", "--compress", "--batch-size", "3")
    capsys.readouterr()
    assert main(["inspect", str(folder), "--json", "--workers", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 24 and not found["broken"]
    assert main(["inspect", str(folder), "--json", "--workers", "0", "--max-megapixels", "0.0001"]) == 0
    assert json.loads(capsys.readouterr().out)["broken_kinds"] == {"huge": 24}
