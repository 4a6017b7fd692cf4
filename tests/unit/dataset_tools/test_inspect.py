"""`inspect`: counts, broken samples by name, buckets, captions, duplicates, the plot."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_tools.__main__ import main
from dataset_tools.inspecting.duplicates import groups_of_similar, signature
from dataset_tools.shards import ShardLimits, ShardWriter

ROOT = Path(__file__).parents[3]


def photo(seed: int, size=(160, 120)) -> Image.Image:
    """Return a smooth picture that is unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, fmt="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def write(folder, pictures, max_samples=4):
    """Write (key, image, ext, caption, size) rows as shards."""
    with ShardWriter(folder, ShardLimits(max_samples=max_samples)) as writer:
        for key, data, ext, caption, (width, height) in pictures:
            writer.write(key, data, ext, caption, {"width_px": width, "height_px": height})
    return folder


@pytest.fixture
def shards(tmp_path):
    """Two shards with six whole pictures, among them a copy and a smaller version, and one truncated."""
    wide, tall = (160, 120), (120, 240)
    rows = [(f"w{n}", encode(photo(n, wide)), "png", f"picture number {n}", wide) for n in range(3)]
    rows.append(("t3", encode(photo(3, tall)), "png", None, tall))
    rows.append(("copy", encode(photo(0, wide)), "png", "", wide))
    rows.append(("small", encode(photo(1, (80, 60)), "JPEG", quality=60), "jpg", "word " * 60, (80, 60)))
    rows.append(("cut", encode(photo(9, wide))[:2000], "png", "x", wide))
    return write(tmp_path / "shards", rows)


def run(capsys, *arguments):
    """Run inspect in this process; returns its exit status, output and errors."""
    status = main(["inspect", *map(str, arguments), "--workers", "0"])
    return status, *capsys.readouterr()


def findings(capsys, *arguments):
    status, out, _ = run(capsys, *arguments, "--json")
    assert status == 0
    return json.loads(out)


def test_counts_and_spreads(shards, capsys):
    found = findings(capsys, shards)
    assert (found["shards"], found["samples"]) == (2, 6)
    assert found["formats"] == {"png": 5, "jpg": 1}
    assert found["width_px"] == {"min": 80, "median": 160, "max": 160}
    assert found["height_px"] == {"min": 60, "median": 120, "max": 240}


def test_broken_samples_are_named_and_do_not_change_the_status(shards, capsys):
    ((broken),) = findings(capsys, shards)["broken"]
    assert broken["shard"].endswith("000001.tar")
    assert broken["key"] == "cut"
    assert "truncated" in broken["reason"]
    status, out, _ = run(capsys, shards)
    assert status == 0
    assert "1 broken (1 cut_picture):" in out
    assert "000001.tar:cut: image file is truncated" in out


def test_damaged_and_foreign_files_are_broken_shards(shards, capsys):
    data = (shards / "000000.tar").read_bytes()
    (shards / "000000.tar").write_bytes(data[: len(data) // 2])
    (shards / "000002.tar").write_text("this is not a tar")
    found = findings(capsys, shards)
    assert found["samples"] >= 3
    assert {row["shard"][-10:] for row in found["broken"] if not row["key"]} == {"000000.tar", "000002.tar"}


def test_facts_that_are_not_true_of_the_picture_are_broken(tmp_path, capsys):
    write(tmp_path / "s", [("a", encode(photo(1)), "png", "x", (1, 2))])
    found = findings(capsys, tmp_path / "s")
    assert found["samples"] == 0
    assert "1 x 2" in found["broken"][0]["reason"]


def test_buckets_say_what_is_cropped_and_enlarged(shards, capsys):
    rows = findings(capsys, shards, "--image-size", 128, "--multiple", 1, "--ratios", "1/1", "1/2")["buckets"]
    by_size = {(row["width_px"], row["height_px"]): row for row in rows}
    assert set(by_size) == {(128, 128), (90, 181)}
    square, tall = by_size[128, 128], by_size[90, 181]
    assert (square["pictures"], tall["pictures"]) == (5, 1)
    # 160 x 120 is scaled to 170 x 128 and loses 42 columns; 80 x 60 too.
    assert square["mean_cropped"] == pytest.approx(42 / 170, abs=0.01)
    assert square["enlarged"] == 5
    assert square["max_scale"] == pytest.approx(128 / 60, abs=0.01)
    assert tall["enlarged"] == 0


def test_captions(shards, capsys):
    captions = findings(capsys, shards)["captions"]
    assert (captions["missing"], captions["empty"], captions["different"], captions["long"]) == (1, 1, 4, 1)
    assert captions["words"] == {"min": 3, "median": 3, "max": 60}


def test_duplicates(shards, capsys):
    duplicates = findings(capsys, shards)["duplicates"]
    short = {
        kind: [[name.rpartition(":")[2] for name in group] for group in groups]
        for kind, groups in duplicates.items()
    }
    assert short == {"keys": [], "identical": [["w0", "copy"]], "similar": [["w1", "small"]]}


def test_keys_used_twice_in_different_shards(tmp_path, capsys):
    for name, seed in (("a", 1), ("b", 2)):
        write(tmp_path / name, [("k", encode(photo(seed)), "png", "x", (160, 120))])
    assert len(findings(capsys, tmp_path / "a", tmp_path / "b")["duplicates"]["keys"]) == 1


def test_signature_survives_scaling_and_compression_and_tells_pictures_apart():
    pictures = [photo(seed) for seed in range(30)]
    changed = []
    for picture in pictures:
        half = picture.resize((80, 60), Image.Resampling.LANCZOS)
        changed.append(Image.open(io.BytesIO(encode(half, "JPEG", quality=40))))
    groups = groups_of_similar([signature(image) for image in pictures + changed])
    assert sorted(groups) == [[n, n + 30] for n in range(30)]


def test_even_pictures_are_told_apart_by_their_colour():
    colours = [Image.new("RGB", (50, 50), colour) for colour in ("red", "blue", "red")]
    assert groups_of_similar([signature(image) for image in colours]) == [[0, 2]]


def test_nothing_usable_says_so(tmp_path, capsys):
    write(tmp_path / "s", [("a", b"no picture", "png", "x", (1, 1))])
    status, out, _ = run(capsys, tmp_path / "s", "--plot", tmp_path / "plot.png")
    assert status == 0
    assert "nothing to train on" in out


def test_no_captions_at_all(tmp_path, capsys):
    write(tmp_path / "s", [("a", encode(photo(1)), "png", None, (160, 120))])
    status, out, _ = run(capsys, tmp_path / "s", "--plot", tmp_path / "plot.png")
    assert status == 0
    assert "captions: 0, 0 different; 1 missing" in out
    assert Image.open(tmp_path / "plot.png").width > 1000


def test_plot_is_drawn(shards, tmp_path, capsys):
    status, _, _ = run(capsys, shards, "--plot", tmp_path / "plot.png")
    assert status == 0
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB"))
    assert ((pixels == (76, 114, 176)).all(-1)).sum() > 1000  # there are bars


@pytest.mark.parametrize("workers", [0, 2])
def test_no_room_for_copies_of_remote_shards_is_one_line(tmp_path, capsys, monkeypatch, workers):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for name in "ab":
        write(tmp_path / name, [("k", encode(photo(1)), "png", "x", (160, 120))])
    shards = [f"local://{tmp_path}/{name}/000000.tar" for name in "ab"]
    assert main(["inspect", *shards, "--workers", str(workers)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: data.cache_dir: ") and error.count("\n") == 1


@pytest.fixture
def inspecting(shards):
    """Starts the command on the shards, under a name that is not ASCII."""
    folder = shards.rename(shards.parent / "é")
    command = [sys.executable, "-m", "dataset_tools", "inspect", folder, "--workers", "0"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    how = {
        "cwd": ROOT,
        "env": environment,
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    return lambda *options: subprocess.Popen([*command, *options], **how)


def test_a_terminal_without_the_letters_of_a_name_is_shown_others(inspecting):
    process = inspecting()
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "\\xe9/000001.tar:cut: " in out


def test_who_reads_may_stop_before_the_end(inspecting):
    process = inspecting("--json")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


def test_workers_find_the_same(shards, capsys):
    alone = findings(capsys, shards)
    main(["inspect", str(shards), "--workers", "2", "--json"])
    assert json.loads(capsys.readouterr().out) == alone


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.tar"], "SHARDS: no .tar at missing.tar"),
        (["{shards}", "--plot", "missing/plot.png"], "no such folder"),
        (["{shards}", "--plot", "plot.xyz"], "--plot"),
        (["pipe:cat a.tar"], "SHARDS: pipe:cat a.tar: inspect runs no commands"),
        (["{shards}", "--ratios", "x"], "ratio"),
        (["{shards}", "--image-size", "0"], "at least 1"),
    ],
)
def test_errors_are_one_line_and_status_two(shards, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["inspect", *(text.format(shards=shards) for text in arguments), "--workers", "0"])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1
    assert message in error
