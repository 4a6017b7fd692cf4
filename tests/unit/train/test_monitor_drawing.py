"""What a page of runs shows, as HTML."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.unit.train.monitor_cases import (
    write_metrics,
    write_record,
    write_run,
    write_settings,
    write_two_players,
)
from train.monitor import charts, facts
from train.monitor.charts import View
from train.monitor.draw.heat import colour
from train.monitor.runs import Run, read_run

VOID = {"br", "img", "input", "path"}
PARTS = (charts.noise_part, charts.loss_part, charts.course_part, charts.speed_part, charts.others_part)


class Balance(HTMLParser):
    """Checks that tags are closed in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def drawn(runs: list[Run], view: View | None = None) -> str:
    """The whole page of these runs, its tags checked."""
    view = view or View()
    parts = [part(runs, view) for part in PARTS]
    text = (
        facts.head(runs, 2e9)
        + "".join(parts)
        + facts.health(runs)
        + facts.starts(runs)
        + facts.settings(runs)
    )
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    return text


def values(text: str) -> list[Any]:
    """What is shown under the pointer, of every plot."""
    return [json.loads(unescape(found)) for found in re.findall(r'data-values="([^"]*)"', text)]


def test_the_map_has_a_row_for_each_level_and_says_its_losses(tmp_path: Path) -> None:
    write_run(tmp_path, 40)
    [heat] = [each for each in values(drawn([read_run("a", tmp_path)])) if "heat" in each]
    assert heat["names"] == ["log-SNR −8", "log-SNR −4", "log-SNR 0", "log-SNR +4", "log-SNR +8"]
    assert len(heat["edges"]) == 41 and heat["edges"][0] == 0 and heat["edges"][-1] == 400
    assert heat["heat"][0][-1] == pytest.approx(0.449329, rel=1e-5)  # exp(-0.002 x 400)


def test_of_two_players_both_are_drawn_each_on_its_own(tmp_path: Path) -> None:
    write_two_players(tmp_path, 20)
    text = drawn([read_run("a", tmp_path)])
    for title in ("Loss, generator", "Loss, discriminator", "Psnr, generator"):
        assert f'<span class="m-title">{title}</span>' in text
    assert "Loss by noise" not in text


def test_several_runs_share_a_plot_and_one_scale_of_colours(tmp_path: Path) -> None:
    runs = []
    for name, rate in (("slow", 0.001), ("fast", 0.004)):
        write_metrics(tmp_path / name, 20, rate=rate)
        write_settings(tmp_path / name, seed=rate)
        runs.append(read_run(name, tmp_path / name))
    text = drawn(runs)
    lines = [each["lines"] for each in values(text) if "lines" in each]
    assert all([line["name"] for line in plot] == ["slow", "fast"] for plot in lines)
    assert len(set(re.findall(r'class="m-scale">([^<]*)<', text))) == 1
    assert "<code>run.seed</code>" in text and "<code>run.num_steps</code>" not in text


def test_what_no_logarithm_knows_is_left_out_and_an_empty_run_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss,loss_log_snr_+0\n1,0,0\n2,-1,\n")
    drawn([read_run("a", tmp_path)])
    text = drawn([Run("b", tmp_path / "b")])
    assert "nothing written yet" in text and "No start is recorded yet" in text


@pytest.mark.parametrize("axis", list(charts.AXES))
def test_every_axis_is_drawn(tmp_path: Path, axis: str) -> None:
    write_run(tmp_path, 10)
    plots = values(drawn([read_run("a", tmp_path)], View(axis=axis)))
    end = {"steps": 100, "samples": 400, "hours": 50 / 3600}[axis]
    assert max(each["x"][1] for each in plots if each["name"] == charts.AXES[axis]) == pytest.approx(
        end, rel=1e-4
    )


def test_names_and_values_of_strangers_are_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    write_record(
        tmp_path, {"error": evil, "device": evil, "left_out": {evil: 3}, "samples_of_sources": {evil: 1}}
    )
    (tmp_path / "config.yaml").write_text(json.dumps({"name": evil, evil: evil}))
    (tmp_path / "metrics.csv").write_text(f'step,"{evil}",samples\n1,2,3\n2,3,3\n')
    text = drawn([read_run(evil, tmp_path), read_run("b", tmp_path)]) + drawn([read_run(evil, tmp_path)])
    assert "<img" not in text and "&lt;img" in text


def test_data_health_tells_what_was_left_out_and_what_sources_gave(tmp_path: Path) -> None:
    write_run(tmp_path, 3)
    ended = {
        "ended": "x",
        "left_out": {"cut": 2, "filtered": 1500},
        "samples_of_sources": {"mine": 300, "more": 100},
    }
    write_record(tmp_path, ended, {})
    text = facts.health([read_run("a", tmp_path)])
    assert text.index("filtered") < text.index("cut") and "1,500" in text
    assert "a tar that ends too early" in text
    assert re.search(r"mine</td><td>300</td><td><i class=\"m-share\" style=\"width:75%\"", text)


def test_skipped_steps_and_restarts_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, 5)
    path = tmp_path / "metrics.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].rpartition(",")[0] + ",3", ""]))
    write_record(tmp_path, {"ended": "x", "interrupted": True, "step": 30}, {"from_step": 30})
    text = drawn([read_run("a", tmp_path)])
    assert "3 steps skipped" in text
    assert "started again after step 30" in text and "stopped, step 30" in text


def test_odd_records_are_drawn(tmp_path: Path) -> None:
    odd: dict[str, Any] = {"started": 5, "from_step": "x", "seconds": "long", "left_out": [1], "ended": None}
    write_record(
        tmp_path, odd, {"samples_of_sources": 7, "left_out": {"cut": "many"}, "step": None, "ended": "x"}
    )
    write_metrics(tmp_path, 2)
    drawn([read_run("a", tmp_path)])


def test_the_scale_of_colours_gets_lighter_all_the_way() -> None:
    def lightness(code: str) -> float:
        red, green, blue = (int(code[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    shades = [lightness(colour(share / 50)) for share in range(51)]
    assert shades == sorted(shades)
