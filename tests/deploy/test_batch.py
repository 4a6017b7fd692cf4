"""Pictures of a file of prompts: in processes as users start them, stopped and started again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from inference import __main__ as cli
from inference import open_picture

ROOT = Path(__file__).parents[2]
FAST = ["task=preview", "stage_c.steps=1"]
PROMPTS = ["a red circle", "a blue square", "a red square", "a blue circle", "red", "blue", "a circle"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a file of prompts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["inference"])
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return tmp_path


def pixels(folder: Path) -> dict[str, bytes]:
    return {path.name: open_picture(path).image.tobytes() for path in folder.glob("0*.png")}


def start(
    tiny_runs: Path, folder: Path, launcher: list[str], *settings: str, **around: str
) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    command = [sys.executable, *launcher, "-m", "inference", f"run={tiny_runs}", "batch_size=2", *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **around}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE, text=True)


def placed(rank: int, size: int) -> dict[str, str]:
    """The environment of one of several processes."""
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}


def draw(tiny_runs: Path, *settings: str) -> int:
    return cli.main(["prompts_file=prompts.txt", f"run={tiny_runs}", "batch_size=2", *FAST, *settings])


def test_killed_processes_are_gone_on_with_by_others(
    tiny_runs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes are killed while they draw, three go on: nothing twice, nothing lost, the same pixels."""
    slow = "stage_c.steps=100"  # so that the kills come before the end
    assert draw(tiny_runs, "output=alone", slow) == 0
    many = folder / "many"
    settings = ["prompts_file=prompts.txt", "output=many", *FAST, slow]
    processes = [start(tiny_runs, folder, [], *settings, **placed(rank, 2)) for rank in range(2)]
    until = time.monotonic() + 600
    while not list(many.glob("*.png")) and time.monotonic() < until:
        time.sleep(0.002)
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in many.glob("*.png")}
    assert 0 < len(kept) < len(PROMPTS)
    lost = min(pixels(folder / "alone").keys() - kept.keys())
    (many / f"{lost}.tmp").write_bytes(b"half")  # as a kill between two bytes leaves it
    capsys.readouterr()

    for rank in range(3):
        for name, value in placed(rank, 3).items():
            monkeypatch.setenv(name, value)
        assert draw(tiny_runs, "output=many", slow) == 0
    assert pixels(many) == pixels(folder / "alone")
    others = {path.name for path in many.iterdir() if path.suffix != ".png"}
    assert others == {"manifest.jsonl", "settings.json"}
    assert all((many / name).stat().st_mtime_ns == at for name, at in kept.items())
    said = capsys.readouterr()
    assert {line.rpartition("/")[2] for line in said.out.split()} == pixels(many).keys() - kept.keys()
    assert "process 3 of 3: " in said.err


def test_a_line_that_fails_in_one_process_stops_no_other(tiny_runs: Path, folder: Path) -> None:
    """The first process has nothing left to do but fail, and waits until the second is done."""
    lines = [{"prompt": "a", "task": "reconstruct", "image": "gone.png"}, "no object"]
    lines += [{"prompt": f"a {colour}", "seed": 4} for colour in ("red", "blue")]
    (folder / "prompts.txt").rename(folder / "prompts.jsonl")
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = start(tiny_runs, folder, launcher, "prompts_file=prompts.jsonl", *FAST, "stage_c.steps=40")
    out, err = done.communicate(timeout=900)
    assert done.returncode == 1
    pictures = folder / "outputs" / "pictures"
    assert pixels(pictures).keys() == {"000003_a-red_4.png", "000004_a-blue_4.png"}
    assert "error: prompts.jsonl: line 1: image: gone.png does not exist" in err
    assert "error: prompts.jsonl: line 2: expected an object" in err
    entries = [json.loads(line) for line in (pictures / "manifest.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in entries] == [1, 2, 3, 4]
    assert entries[1].keys() == {"line", "error"}
    assert entries[2] == {
        "file": "000003_a-red_4.png",
        "line": 3,
        "prompt": "a red",
        "seed": 4,
        "settings": entries[3]["settings"],
    }


def test_pictures_that_are_there_are_left_alone(
    tiny_runs: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of a batch of two is missing: it comes back as it was, and nothing else is written."""
    assert draw(tiny_runs, "sheet=true") == 0
    pictures = folder / "outputs" / "pictures"
    assert (pictures / "sheet.png").is_file()
    before = pixels(pictures)
    (pictures / "000002_a-blue-square_0.png").unlink()
    times = {path.name: path.stat().st_mtime_ns for path in pictures.glob("*.png")}
    capsys.readouterr()
    assert draw(tiny_runs) == 0
    said = capsys.readouterr()
    assert said.out == "outputs/pictures/000002_a-blue-square_0.png\n"
    assert "7 pictures, 6 of them there already" in said.err
    assert pixels(pictures) == before
    assert all((pictures / name).stat().st_mtime_ns == at for name, at in times.items())


def test_lines_with_one_problem_are_told_together(
    tiny_runs: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "prompts.csv").write_text("prompt,image,task\n" + 7 * "a,gone.png,image_to_image\n" + "b,,\n")
    assert draw(tiny_runs, "prompts_file=prompts.csv") == 1
    problem = "error: prompts.csv: lines 2, 3, 4, 5, 6 and 2 more: image: gone.png does not exist\n"
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["prompt=x"], "prompts_file: give either prompt or prompts_file, not both"),
        (["prompts_file=none.txt"], "prompts_file: none.txt does not exist"),
        (["prompts_file=all.jsonl"], "prompts_file: all.jsonl: line 1: colour: no setting of a line; "),
        (["recreate=x.png"], "task: recreate takes this from the picture"),
        (["run=nowhere"], "run: the folder nowhere does not exist"),
    ],
)
def test_what_concerns_all_lines_is_a_mistake(
    tiny_runs: Path, folder: Path, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    (folder / "all.jsonl").write_text('{"prompt": "a", "colour": "red"}\n')
    assert draw(tiny_runs, *settings) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (folder / "outputs").exists()


def test_processes_need_lines_to_share(
    tiny_runs: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["prompt=x", f"run={tiny_runs}"]) == 2
    assert "set prompts_file=FILE" in capsys.readouterr().err
    assert draw(tiny_runs, "sheet=true") == 2
    assert "sheet: cannot be had with several processes" in capsys.readouterr().err
