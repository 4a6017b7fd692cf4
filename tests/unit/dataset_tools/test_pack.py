"""`pack`: every kind of folder, the same bytes however often it is stopped, and clear errors."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_tools.__main__ import main
from dataset_tools.images import open_image
from dataset_tools.records import read_samples


def save(path: Path, size=(40, 30), seed=0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def pack(source, out, *options) -> int:
    return main(["pack", str(source), str(out), "--workers", "0", *map(str, options)])


def samples(out):
    """Return all samples of a data set by the name of their source."""
    found, broken = [], []
    for path in sorted(out.glob("*.tar")):
        with open(path, "rb") as file:
            found += read_samples(file, path.name, broken.append)
    assert not broken
    assert len({s.key for s in found}) == len(found)
    return {s.facts["source"]: s for s in found}


def report(out):
    with open(out / "report.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def contents(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture
def photos(tmp_path):
    """Twelve pictures with captions, in two folders."""
    folder = tmp_path / "photos"
    for n in range(12):
        name = f"{'sub/' if n % 2 else ''}p{n:02d}"
        save(folder / f"{name}.png", seed=n)
        (folder / f"{name}.txt").write_text(f"caption {n}\n")
    return folder


def test_pictures_are_kept_byte_for_byte_with_their_captions_and_facts(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert pack(photos, out) == 0
    found = samples(out)
    assert len(found) == 12
    sample = found["sub/p03.png"]
    assert sample.image_bytes == (photos / "sub/p03.png").read_bytes()
    assert sample.caption == "caption 3"
    assert sample.facts == {"width_px": 40, "height_px": 30, "source": "sub/p03.png"}
    assert report(out) == {}
    assert capsys.readouterr().out == f"12 samples in 1 shards: {out}\n"


def test_missing_captions_are_counted(photos, tmp_path, capsys):
    (photos / "p00.txt").unlink()
    pack(photos, tmp_path / "out")
    assert "1 samples have no caption" in capsys.readouterr().out
    assert samples(tmp_path / "out")["p00.png"].caption is None


def test_webdataset_reads_what_was_packed(photos, tmp_path):
    import webdataset

    pack(photos, tmp_path / "out", "--shard-samples", 5)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil")
    rows = list(dataset.to_tuple("png", "txt", "json"))
    assert len(rows) == 12
    assert all(image.size == (facts["width_px"], facts["height_px"]) for image, _, facts in rows)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_repetition_change_nothing(photos, tmp_path, workers):
    pack(photos, tmp_path / "one", "--shard-samples", 5)
    assert (
        main(["pack", str(photos), str(tmp_path / "two"), "--shard-samples", "5", "--workers", str(workers)])
        == 0
    )
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert pack(photos, tmp_path / "one", "--shard-samples", 5) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_output_does_not_depend_on_where_the_folder_is_or_when_it_was_copied(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    pack(photos, tmp_path / "one")
    pack(tmp_path / "elsewhere", tmp_path / "two")
    for name in ("000000.tar", "index.json", "report.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    status = (Path(path) for path in os.listdir("/proc") if path.isdigit())
    found = []
    for process in status:
        try:
            fields = (Path("/proc") / process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(process.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
def test_killed_and_run_again_gives_the_bytes_of_an_uninterrupted_run(tmp_path, capsys):
    photos, killed, whole = tmp_path / "photos", tmp_path / "killed", tmp_path / "whole"
    for n in range(40):
        save(photos / f"{n:02d}.png", (240, 240), n)
    (photos / "07.png").write_bytes(b"damaged")
    options = ["--shard-samples", "4", "--reencode", "webp", "--quality", "80"]
    command = [sys.executable, "-m", "dataset_tools", "pack", photos, killed, *options, "--workers", "2"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    try:
        wait_for(lambda: (killed / "000002.tar").exists())
        workers = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
    assert not (killed / "index.json").exists()
    assert not (killed / "000009.tar").exists()
    assert workers
    wait_for(lambda: not any(map(is_alive, workers)), 20)
    capsys.readouterr()
    assert pack(photos, killed, *options) == 0
    assert " unchanged)" in capsys.readouterr().out
    assert pack(photos, whole, *options) == 0
    assert contents(killed) == contents(whole)
    assert list(report(killed)) == ["07.png"]


def modified(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}


def test_only_what_changed_is_packed_again(photos, tmp_path, capsys):
    out = tmp_path / "out"
    pack(photos, out, "--shard-samples", 3)
    before = modified(out)
    (photos / "p06.txt").write_text("another caption")  # seventh of the order p00 p02 … sub/p01 …
    pack(photos, out, "--shard-samples", 3)
    assert samples(out)["p06.png"].caption == "another caption"
    after = modified(out)
    assert [name for name in sorted(after) if after[name] != before[name]] == ["000001.tar"]
    assert "(1 packed, 3 unchanged)" in capsys.readouterr().out


def test_changed_picture_option_and_missing_shard_are_packed_again(photos, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    pack(photos, out, "--shard-samples", 3)
    save(photos / "p02.png", (50, 50))
    (out / "000003.tar").unlink()
    pack(photos, out, "--shard-samples", 3)
    assert samples(out)["p02.png"].facts["width_px"] == 50
    pack(photos, out, "--shard-samples", 4, "--reencode", "jpg")
    pack(photos, fresh, "--shard-samples", 4, "--reencode", "jpg")
    assert contents(out) == contents(fresh)


def test_added_and_removed_pictures(photos, tmp_path, capsys):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    pack(photos, out, "--shard-samples", 3)
    for n in (1, 3, 5, 7):
        (photos / f"sub/p{n:02d}.png").unlink()
    save(photos / "zzz.png")
    capsys.readouterr()
    pack(photos, out, "--shard-samples", 3)
    assert "1 old ones removed" in capsys.readouterr().out
    pack(photos, fresh, "--shard-samples", 3)
    assert contents(out) == contents(fresh)
    assert "sub/p01.txt" in report(out)


def test_limit_in_bytes_holds_and_a_picture_that_grows_moves_the_ones_behind(photos, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    pack(photos, out, "--shard-bytes", "30K")
    assert len(list(out.glob("*.tar"))) > 1
    assert all(path.stat().st_size <= 30 << 10 for path in out.glob("*.tar"))
    save(photos / "p00.png", (80, 60))
    pack(photos, out, "--shard-bytes", "30K")
    pack(photos, fresh, "--shard-bytes", "30K")
    assert contents(out) == contents(fresh)


def test_a_smaller_next_picture_may_move_into_the_shard_before(photos, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    pack(photos, out, "--shard-bytes", "20K")
    behind = min(name for name, sample in samples(out).items() if sample.shard == "000001.tar")
    save(photos / behind, (2, 2))
    pack(photos, out, "--shard-bytes", "20K")
    pack(photos, fresh, "--shard-bytes", "20K")
    assert contents(out) == contents(fresh)


def test_unreadable_pictures_are_listed_and_counted_and_not_fatal(photos, tmp_path, capsys):
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.JPG").write_text("hello")
    whole = save(tmp_path / "whole.jpg", (200, 200)).read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    os.symlink("nowhere.png", photos / "dangling.png")
    (photos / "p02.txt").write_bytes(b"caf\xe9")
    os.mkfifo(photos / "pipe.png")
    out = tmp_path / "out"
    assert pack(photos, out) == 0
    reasons = report(out)
    names = {"empty.jpg", "text.JPG", "cut.jpg", "dangling.png", "p02.png", "pipe.png"}
    assert set(reasons) == names
    assert "empty" in reasons["empty.jpg"]
    assert "truncated" in reasons["cut.jpg"]
    assert "UTF-8" in reasons["p02.png"]
    assert "left out 3 unreadable pictures and" in capsys.readouterr().out


def test_other_files_hidden_ones_and_orphan_captions_are_listed(photos, tmp_path):
    (photos / "notes.md").write_text("x")
    (photos / "drawing.eps").write_text("%!PS")
    (photos / "orphan.txt").write_text("x")
    (photos / ".hidden.png").write_bytes(b"x")
    save(photos / ".thumbnails/p.png")
    out = tmp_path / "out"
    pack(photos, out)
    assert len(samples(out)) == 12
    assert set(report(out)) == {"notes.md", "drawing.eps", "orphan.txt", ".hidden.png", ".thumbnails"}
    assert "not run" in report(out)["drawing.eps"]


def test_odd_names(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = [
        "a.jpg",
        "a.png",
        "img.v2.jpg",
        "img.v3.jpg",
        "mit leer zeichen.PNG",
        "日本/é.JPeG",
        "__meta__.png",
        "x.tar.jpg",
    ]
    for n, name in enumerate(names):
        save(photos / name, seed=n)
    (photos / "a.TXT").write_text("both")
    (photos / "img.v2.txt").write_text("two")
    os.makedirs(os.fsencode(photos / "bytes"), exist_ok=True)
    shutil.copy(photos / "a.png", os.path.join(os.fsencode(photos), b"bytes", b"\xff.png"))
    pack(photos, out)
    found = samples(out)
    assert set(found) == {*names, "bytes/\\xff.png"}
    assert all("." not in s.key for s in found.values())
    assert found["a.jpg"].caption == found["a.png"].caption == "both"
    assert found["img.v2.jpg"].caption == "two"
    assert found["img.v3.jpg"].caption is None
    assert found["日本/é.JPeG"].image_ext == "jpg"


def test_ending_follows_the_content(tmp_path):
    save(tmp_path / "photos/really_a_png.jpg", format="PNG")
    pack(tmp_path / "photos", tmp_path / "out")
    assert samples(tmp_path / "out")["really_a_png.jpg"].image_ext == "png"


def test_links_are_followed_but_not_round_in_circles(photos, tmp_path):
    save(tmp_path / "other/far.png")
    os.symlink(tmp_path / "other", photos / "linked")
    os.symlink(photos, photos / "sub/loop")
    os.symlink(photos / "p00.png", photos / "link.png")
    out = tmp_path / "out"
    pack(photos, out)
    assert {"linked/far.png", "link.png"} < set(samples(out))
    assert len(samples(out)) == 14
    assert list(report(out)) == ["sub/loop"]


def test_output_inside_the_source_is_not_packed_itself(photos):
    out = photos / "shards"
    pack(photos, out)
    first = contents(out)
    pack(photos, out)
    assert contents(out) == first
    assert report(out) == {}


def test_rotated_pictures_keep_their_bytes_and_have_upright_facts(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "photos/r.jpg", (40, 30), exif=exif)
    pack(tmp_path / "photos", tmp_path / "out")
    (sample,) = samples(tmp_path / "out").values()
    assert sample.image_bytes == path.read_bytes()
    assert (sample.facts["width_px"], sample.facts["height_px"]) == (30, 40)


def test_reencoding_and_shrinking(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    save(photos / "large.png", (400, 200))
    save(photos / "small.gif", (40, 20))
    save(photos / "tiny.webp", (1, 300))
    pack(photos, out, "--reencode", "jpg", "--max-size", 100)
    found = samples(out)
    assert {s.image_ext for s in found.values()} == {"jpg"}
    assert Image.open(BytesIO(found["large.png"].image_bytes)).size == (100, 50)
    assert found["large.png"].facts["width_px"] == 100
    assert open_image(found["small.gif"].image_bytes).size == (40, 20)
    assert open_image(found["tiny.webp"].image_bytes).size == (1, 100)


def test_shrinking_alone_changes_only_pictures_that_are_too_large(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    small = save(photos / "small.jpg", (40, 20))
    save(photos / "large.jpg", (400, 200))
    save(photos / "large.bmp", (400, 200))
    pack(photos, out, "--max-size", 100)
    found = samples(out)
    assert found["small.jpg"].image_bytes == small.read_bytes()
    assert found["large.jpg"].image_ext == "jpg"
    assert found["large.bmp"].image_ext == "png"


def test_quality_matters(tmp_path):
    save(tmp_path / "photos/a.png", (200, 200))
    for quality in (20, 95):
        pack(tmp_path / "photos", tmp_path / str(quality), "--reencode", "jpg", "--quality", quality)
    low, high = (samples(tmp_path / name)["a.png"].image_bytes for name in ("20", "95"))
    assert len(low) < len(high) / 2


def test_decompression_bomb_is_reported(tmp_path):
    photos = tmp_path / "photos"
    save(photos / "a.png")
    header = b"P6 60000 60000 255\n"
    (photos / "bomb.ppm").write_bytes(header + bytes(100))
    pack(photos, tmp_path / "out")
    assert "pixels" in report(tmp_path / "out")["bomb.ppm"]


def fails(capsys, *arguments) -> str:
    """Run a command that must fail; returns its one line."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.count("\n") == 1
    return captured.err


def test_errors_are_one_line_and_status_two(photos, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "none").mkdir()
    (tmp_path / "file").write_text("x")
    assert "no such folder" in fails(capsys, "pack", tmp_path / "missing", out)
    assert "holds no pictures" in fails(capsys, "pack", tmp_path / "none", out)
    assert "found a file" in fails(capsys, "pack", tmp_path / "file", out)
    assert "found a file" in fails(capsys, "pack", photos, tmp_path / "file")
    assert "same folder" in fails(capsys, "pack", photos, photos)
    assert "no such file" in fails(capsys, "pack", photos, out, "--captions", tmp_path / "no.csv")
    assert "'x'" in fails(capsys, "pack", photos, out, "--shard-bytes", "x")
    assert "from 1 to 100" in fails(capsys, "pack", photos, out, "--quality", "101")
    assert "at least 1" in fails(capsys, "pack", photos, out, "--max-size", "0")
    assert "COMMAND" in fails(capsys)
    assert not out.exists()


def test_only_unreadable_pictures_is_an_error_with_a_report(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("x")
    assert "no picture can be read" in fails(
        capsys, "pack", tmp_path / "photos", tmp_path / "out", "--workers", 0
    )
    assert list(report(tmp_path / "out")) == ["a.jpg"]
    assert not list((tmp_path / "out").glob("*.tar"))
    assert not (tmp_path / "out/index.json").exists()


def test_shards_of_others_are_not_overwritten(photos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "000000.tar").write_bytes(b"precious")
    assert "did not write" in fails(capsys, "pack", photos, out)
    assert (out / "000000.tar").read_bytes() == b"precious"


def test_help_names_all_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("pack", "inspect", "shapes"))
