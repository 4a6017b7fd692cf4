"""The page of runs in a real browser, beside a real training."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_tools.__main__ import main as dataset_tools
from tests.integration.tiny_experiment import write_tiny_experiment
from tests.pages.conftest import ROOT, Server, Watched
from tests.unit.train.monitor_cases import write_metrics, write_record, write_run, write_settings, write_sheet

SLOW_MS = 60_000  # of a machine that does much else
Visit = Callable[..., Watched]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `fast` and `slow` of a sweep, and one that was damaged."""
    runs = tmp_path_factory.mktemp("runs")
    for name, rate in (("fast", 0.004), ("slow", 0.001)):
        write_run(runs / name, 30, num_steps=600, seed=int(1000 * rate))
        write_metrics(runs / name, 30, rate=rate)
        for step, colour in ((100, "red"), (200, "lime"), (300, "blue")):
            write_sheet(runs / name, step, colour)
    write_run(runs / "damaged", 3)
    (runs / "damaged" / "run.json").write_text("{")
    os.utime(runs / "fast" / "metrics.csv", (time.time() + 60, time.time() + 60))  # the newest comes first
    return runs


@pytest.fixture(scope="module")
def served(folder: Path, start_page: Callable[..., Server]) -> Iterator[Server]:
    yield start_page("train.monitor", f"run={folder}", "refresh_s=0.5")


def opened(visit: Visit, server: Server, **window: Any) -> Watched:
    watched = visit(server.address, **window)
    watched.page.locator(".m-head").first.wait_for(timeout=SLOW_MS)
    return watched


def choose(page: Any, name: str) -> None:
    """Add a run to those that are shown."""
    page.get_by_label("Runs").click()
    page.get_by_role("option", name=name).click()
    page.get_by_label("Runs").blur()  # so that the next click opens the list again


def sheet_colour(page: Any) -> list[int]:
    """The colour in the middle of the sample sheet that is shown."""
    page.wait_for_function("document.querySelector('.m-sheets img')?.naturalWidth > 0", timeout=SLOW_MS)
    return page.evaluate(
        """() => { const image = document.querySelector('.m-sheets img');
        const context = document.createElement('canvas').getContext('2d'); context.drawImage(image, 0, 0);
        return [...context.getImageData(5, 5, 1, 1).data].slice(0, 3); }"""
    )


def test_a_run_is_shown_with_values_under_the_pointer(visit: Visit, served: Server) -> None:
    watched = opened(visit, served)
    page = watched.page
    assert page.locator(".m-head").inner_text().startswith("fast")
    page.locator(".m-heat .m-plot").hover(position={"x": 5, "y": 5})
    tip = page.locator(".m-tip")
    tip.wait_for(state="visible")
    assert "log-SNR −8" in tip.inner_text() and "0.96" in tip.inner_text()  # exp(-0.004 x 10)
    plot = page.locator(".m-chart:not(.m-heat) .m-plot").first
    plot.focus()
    page.keyboard.press("ArrowRight")
    assert "log-SNR" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    assert (watched.errors, watched.outside) == ([], [])


def test_sheets_go_by_the_slider_newest_first(visit: Visit, served: Server, folder: Path) -> None:
    page = opened(visit, served).page
    page.get_by_text("step 300, newest").wait_for(timeout=SLOW_MS)
    assert sheet_colour(page) == [0, 0, 255]
    page.locator(".m-sheets input").press("ArrowLeft")
    page.get_by_text("step 200", exact=True).wait_for()
    page.wait_for_function("document.querySelector('.m-sheets img').alt.includes('after 200')")
    write_sheet(folder / "fast", 400, "red")
    page.locator(".m-sheets input[max='3']").wait_for(timeout=SLOW_MS)
    page.get_by_text("step 200", exact=True).wait_for()  # it stays there while newer ones come
    assert sheet_colour(page) == [0, 255, 0]


def test_runs_are_compared_in_one_plot(visit: Visit, served: Server) -> None:
    watched = opened(visit, served)
    page = watched.page
    choose(page, "slow")
    page.locator(".m-heat").nth(1).wait_for(timeout=SLOW_MS)
    assert page.locator(".m-head").count() == 2
    loss = page.locator(".m-grid2 .m-chart").first
    assert [key.split()[0] for key in loss.locator(".m-key").all_inner_texts()] == ["fast", "slow"]
    assert "run.seed" in page.locator(".m-facts").inner_text()
    choose(page, "damaged")
    page.get_by_text("run.json: cannot be read").wait_for(timeout=SLOW_MS)
    assert (watched.errors, watched.outside) == ([], [])


def test_smoothing_and_the_axis_are_the_readers(visit: Visit, served: Server) -> None:
    page = opened(visit, served).page
    page.get_by_label("hours").check()
    page.wait_for_function(
        """JSON.parse(document.querySelector('.m-heat .m-plot').dataset.values).name === 'hours'""",
        timeout=SLOW_MS,
    )
    page.get_by_label("Log axis").uncheck()
    page.wait_for_function(
        """JSON.parse(document.querySelector('.m-grid2 .m-plot').dataset.values).log === false""",
        timeout=SLOW_MS,
    )


def test_it_fits_a_phone(visit: Visit, served: Server) -> None:
    page = opened(visit, served, width=390, height=800, dark=True).page
    page.locator(".m-heat").wait_for(timeout=SLOW_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_training_is_followed_from_before_its_start_to_its_end(
    visit: Visit, start_page: Callable[..., Server], shards: Path, tmp_path: Path
) -> None:
    configs = write_tiny_experiment(tmp_path, shards)
    server = start_page("train.monitor", f"run={tmp_path / 'out'}", "refresh_s=0.5")
    watched = opened(visit, server)
    page = watched.page
    assert "waiting" in page.locator(".m-head").inner_text()
    command = [sys.executable, "-m", "train", f"--config-dir={configs}", "experiment=tiny"]
    sizes = ["run.num_steps=300", "run.sample_every=100", "run.save_every=300", "run.log_every=5"]
    training = subprocess.Popen(
        [*command, *sizes], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        page.locator(".m-running").wait_for(timeout=2 * SLOW_MS)
        page.locator(".m-grid2 .m-plot").first.wait_for(timeout=2 * SLOW_MS)
        page.evaluate("window.scrollTo(0, 150)")  # the reader's place, which no refresh may change
        page.locator(".m-done").wait_for(timeout=2 * SLOW_MS)
        page.get_by_text("step 300, newest").wait_for(timeout=SLOW_MS)
    finally:
        output, _ = training.communicate(timeout=120)
    assert training.returncode == 0, output.decode()
    assert "300 of 300" in page.locator(".m-head").inner_text()
    assert page.evaluate("window.scrollY") == 150
    assert (watched.errors, watched.outside) == ([], [])
    assert "Traceback" not in server.output


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of small pictures, packed as a user would."""
    from PIL import Image

    pictures = tmp_path_factory.mktemp("pictures")
    for i in range(8):
        Image.effect_noise((32, 32), 40 + i).convert("RGB").save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"picture {i}")
    packed = tmp_path_factory.mktemp("packed") / "data"
    assert dataset_tools(["pack", str(pictures), str(packed)]) == 0
    return packed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run=README.md"], "run: expected the folder of a run, found the file README.md"),
        (["run=docs"], "run: no run in docs"),
        ([], "run: missing"),
        (["run=x", "prt=3"], "prt: unknown key; did you mean 'port'?"),
        (["run=x", "refresh_s=0"], "refresh_s: expected at least 0.2"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from train.monitor.__main__ import main

    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and words in told and told.count("\n") == 1


def test_a_new_run_in_the_folder_can_be_chosen(
    visit: Visit, start_page: Callable[..., Server], tmp_path: Path
) -> None:
    write_run(tmp_path / "first", 3)
    server = start_page("train.monitor", str(tmp_path), "refresh_s=0.5")
    page = opened(visit, server).page
    write_metrics(tmp_path / "second", 3)
    write_record(tmp_path / "second", {})
    write_settings(tmp_path / "second")
    page.get_by_label("Runs").wait_for(timeout=SLOW_MS)
    choose(page, "second")
    page.locator(".m-head").nth(1).wait_for(timeout=SLOW_MS)
    later = opened(visit, server).page  # whoever comes when it is there already
    later.get_by_label("Runs").wait_for(timeout=SLOW_MS)
    choose(later, "second")
    later.locator(".m-head").nth(1).wait_for(timeout=SLOW_MS)


def test_runs_begin_in_a_folder_that_was_not_there(
    visit: Visit, start_page: Callable[..., Server], tmp_path: Path
) -> None:
    server = start_page("train.monitor", str(tmp_path / "sweep"), "refresh_s=0.5")
    watched = opened(visit, server)
    page = watched.page
    page.get_by_text("nothing written yet").wait_for(timeout=SLOW_MS)
    for name in ("first", "second"):
        write_run(tmp_path / "sweep" / name, 3)
    page.locator(".m-head", has_text="30 of").wait_for(timeout=SLOW_MS)
    page.locator(".m-controls .token").wait_for(timeout=SLOW_MS)
    shown = page.locator(".m-controls .token").inner_text().strip()
    choose(page, "first" if shown == "second" else "second")
    page.locator(".m-head").nth(1).wait_for(timeout=SLOW_MS)
    tokens = page.locator(".m-controls .token").all_inner_texts()
    assert sorted(map(str.strip, tokens)) == ["first", "second"]
    assert (watched.errors, watched.outside) == ([], [])
