"""`pack`: all that belongs to a picture, the same bytes however often it is stopped, and clear errors."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_tools.__main__ import main
from dataset_tools.locks import locked
from tests.unit.dataset_tools.pack_cases import contents, pack, report, samples, save


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


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(photos, tmp_path):
    out = tmp_path / "out"
    pack(photos, out)
    whole = contents(out)
    left = ["000007.tar.tmp", "index.json.0a.tmp", "report.csv.0a.tmp", ".pack/000000.json.0a.tmp"]
    for name in [*left, "mine.tmp"]:
        (out / name).write_text("x")
    assert pack(photos, out) == 0
    assert contents(out) == whole | {"mine.tmp": b"x"}


FULL = """
import resource, sys
from dataset_tools.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_a_disk_that_takes_no_more_is_named_and_gets_its_room_back(photos, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", FULL, "pack", photos, out, "--workers", "0"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {out}/000000.tar: File too large\n")
    assert [path.name for path in out.iterdir()] == [".pack"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_folder_is_packed_into_by_one_process_at_a_time(photos, tmp_path, capsys):
    out = tmp_path / "out"
    pack(photos, out)
    whole = contents(out)
    capsys.readouterr()
    with (out / ".pack/lock").open("ab") as file, locked(file):
        error = fails(capsys, "pack", photos, out, "--workers", "0", "--shard-samples", "1")
    assert error == f"error: {out}: another pack is at work there; wait for its end\n"
    assert contents(out) == whole
    assert pack(photos, out, "--shard-samples", 1) == 0


def test_help_names_all_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("pack", "inspect", "shapes"))
