"""What a page of runs reads: whole, growing, damaged and missing files."""

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from modules.schema import ConfigError
from tests.unit.train.monitor_cases import write_metrics, write_record, write_run, write_settings, write_sheet
from train.monitor.reader import Reader
from train.monitor.runs import find_runs, read_run
from train.monitor.table import read_table


def test_a_whole_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_metrics(tmp_path, 5)
    table = read_table(tmp_path / "metrics.csv")
    assert table.problems == ()
    np.testing.assert_array_equal(table.steps, [10, 20, 30, 40, 50])
    np.testing.assert_allclose(table.column("loss"), [0.2, 0.1, 2 / 30, 0.05, 0.04])
    assert table.newest("samples") == 200
    assert math.isnan(table.newest("no such metric"))


def test_at_every_byte_of_a_growing_file_its_whole_rows_are_read(tmp_path: Path) -> None:
    write_metrics(tmp_path, 3)
    path = tmp_path / "metrics.csv"
    data = path.read_bytes()
    header = data.index(b"\n")
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        table = read_table(path)
        assert table.problems == ()
        assert len(table.steps) == max(0, data[:length].count(b"\n") - 1), length
        assert bool(table.columns) == (length > header)


def test_damaged_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    write_metrics(tmp_path, 4)
    path = tmp_path / "metrics.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"20,\xff\xfe\x00 no number\n"
    lines.insert(3, b"25," + b"x," * 10 + b"\n")
    path.write_bytes(b"".join(lines))
    table = read_table(path)
    np.testing.assert_array_equal(table.steps, [10, 30, 40])
    assert table.problems == ("metrics.csv: 2 damaged lines left out",)


def test_what_is_no_table_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for data in (b"\x89PNG\r\n\x1a\n" + bytes(300) + b"\n", b"a,b\n1,2\n", b"step,step\n1,2\n"):
        path.write_bytes(data)
        table = read_table(path)
        assert len(table.steps) == 0
        assert [problem.count("\n") for problem in table.problems] == [0]
        assert "names no column 'step'" in table.problems[0]


def test_infinities_count_as_no_number_and_later_rows_of_a_step_count(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n2,inf\n1,0.5\n2,0.25\n3,\n")
    table = read_table(tmp_path / "metrics.csv")
    np.testing.assert_array_equal(table.steps, [1, 2, 3])
    np.testing.assert_array_equal(table.column("loss"), [0.5, 0.25, math.nan])


def test_a_run_that_has_written_nothing_is_a_run(tmp_path: Path) -> None:
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        assert list(find_runs(folder)) == [folder.name]
        run = read_run(folder.name, folder)
        assert (run.starts, run.sheets, run.problems) == ((), (), ())
        (tmp_path / "empty").mkdir(exist_ok=True)


def test_runs_below_a_folder_are_found_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "lr/0.1", "lr/0.2")):
        folder = write_run(tmp_path / name, 1)
        for path in folder.iterdir():
            os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "data").mkdir()
    assert list(find_runs(tmp_path)) == ["new", "lr/0.1", "lr/0.2"]


def test_a_folder_without_runs_and_a_file_are_mistakes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.tar").write_bytes(b"")
    with pytest.raises(ConfigError, match="no run in"):
        find_runs(tmp_path / "data")
    with pytest.raises(ConfigError, match="found the file"):
        find_runs(tmp_path / "data" / "a.tar")


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
@pytest.mark.parametrize("data", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"[" * 5000, b'{"starts": [1]}\x00'])
def test_a_damaged_record_is_one_line_and_the_rest_is_read(tmp_path: Path, name: str, data: bytes) -> None:
    write_run(tmp_path, 3)
    (tmp_path / name).write_bytes(data)
    run = read_run("a", tmp_path)
    assert len(run.table.steps) == 3
    assert len(run.problems) == 1 and run.problems[0].startswith(f"{name}: cannot be read")
    assert "\n" not in run.problems[0]


def test_sheets_are_found_newest_first_and_other_files_are_not(tmp_path: Path) -> None:
    write_run(tmp_path, 1)
    for step in (500, 1500, 1000):
        write_sheet(tmp_path, step, "red")
    (tmp_path / "samples" / ".step_00002000.png").write_bytes(b"half")
    (tmp_path / "samples" / "notes.txt").write_text("no sheet")
    assert [sheet.step for sheet in read_run("a", tmp_path).sheets] == [1500, 1000, 500]


def test_a_reader_sees_what_is_new_and_reads_nothing_twice(tmp_path: Path) -> None:
    write_run(tmp_path, 2)
    reader = Reader(tmp_path)
    [name] = reader.names
    first = reader.run(name)
    assert reader.run(name) is first
    write_metrics(tmp_path, 3)
    assert (grown := reader.run(name)) and len(grown.table.steps) == 3
    write_sheet(tmp_path, 30, "blue")
    assert (grown := reader.run(name)) and [sheet.step for sheet in grown.sheets] == [30]


def test_a_run_that_was_deleted_is_none_any_more(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, 2)
    reader = Reader(tmp_path)
    assert [run.name for run in reader.chosen(["a", "b"])] == ["a", "b"]
    shutil.rmtree(tmp_path / "a")
    assert reader.names == ["b"]  # as another reader of the page may ask between two lines of this one
    assert reader.run("a") is None
    assert [run.name for run in reader.chosen(["a", "b"])] == ["b"]


def test_a_reader_gives_out_sheets_of_its_runs_and_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 2)
    write_sheet(tmp_path / "a", 10, "green")
    (tmp_path / "a" / "samples" / "step_00000020.png").write_text("no picture")
    reader = Reader(tmp_path / "a")
    assert reader.sheet("a", 10).startswith("data:image/png;base64,")
    asked = [("a", 20), ("a", 30), ("../a", 10), ("a", "10"), (None, 10), (["a"], 10), ("a", None)]
    assert [reader.sheet(*each) for each in asked] == [""] * len(asked)


def test_settings_are_found_by_their_keys(tmp_path: Path) -> None:
    write_settings(tmp_path, num_steps="many", seed=7)
    run = read_run("a", tmp_path)
    assert run.setting("run", "seed") == 7
    assert run.whole_number("run", "num_steps") is None
    assert run.setting("run", "seed", "deeper") is None


def test_a_record_without_a_table_is_a_run(tmp_path: Path) -> None:
    write_record(tmp_path / "a", {})
    assert list(find_runs(tmp_path / "a")) == ["a"]
    assert len(read_run("a", tmp_path / "a").starts) == 1
