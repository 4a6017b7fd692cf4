"""The report shows what a folder holds, and says so when it holds nothing."""

import json
from pathlib import Path

import pytest
from PIL import Image

from scripts.report import headline, main, read_losses, smooth


def write_run(folder: Path, header: str, rows: list[str]) -> None:
    (folder / "samples").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    Image.new("RGB", (8, 8), "red").save(folder / "samples" / "step_00000002.png")


def test_losses_of_one_player_and_of_the_first_of_two(tmp_path: Path) -> None:
    write_run(tmp_path / "b", "step,loss", ["1,0.5", "2,", "3,0.25"])
    assert read_losses(tmp_path / "b" / "metrics.csv") == ([1, 3], [0.5, 0.25])
    header = "step,generator/psnr,generator/loss,discriminator/loss"
    write_run(tmp_path / "a", header, ["1,20,0.5,2.0"])
    assert read_losses(tmp_path / "a" / "metrics.csv") == ([1], [0.5])


def test_smoothing_keeps_a_straight_line_and_its_length() -> None:
    line = [float(i) for i in range(200)]
    assert smooth(line)[50:150] == pytest.approx(line[50:150])
    assert len(smooth(line)) == 200
    assert smooth([1.0]) == [1.0]


def test_page_holds_figures_and_pictures_and_needs_no_other_file(tmp_path: Path) -> None:
    write_run(tmp_path / "stage_a", "step,generator/loss", ["1,0.5", "2,0.4"])
    scores = {"stage_a": {"psnr": 33.25}, "cascade": {"psnr": 30.5}}
    prompts = {"num_pictures": 200, "accuracy": {"colour_and_shape": 0.935}}
    report = {"prompts": prompts, "reconstruction": scores}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "93.5%" in page
    assert "33.2 dB" in page
    assert page.count("data:image/png;base64,") == 2  # the loss curves and the run's sheet
    assert "http" not in page


def test_headline_leaves_out_what_was_not_measured() -> None:
    assert headline({}) == []


def test_empty_folder_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no runs and no report" in capsys.readouterr().err
