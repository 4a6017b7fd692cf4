"""The worked examples of docs/extend/: under 60 lines each, and they do what their pages say."""

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from modules.adapters import filters
from modules.schema import ConfigError
from modules.weights.parts import read_parts
from tests.documents.fenced import blocks, run_commands, write_files

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "extend"
MOST_LINES = 60


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_what_is_added_has_under_60_lines(page: Path) -> None:
    added = {block.title: block.text for block in blocks(page) if "/" in block.title}
    assert (
        added and sum(text.count("\n") for title, text in added.items() if title.endswith(".py")) < MOST_LINES
    )
    for title in added:
        assert not (ROOT / title).exists(), f"{title} is there already: the page would overwrite it"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_what_is_added_is_written_like_the_rest(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    settings = ROOT / "pyproject.toml"
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--config", settings, "--no-cache", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_filter_blurs_each_picture_by_its_own_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_files(PAGES / "filter.md", tmp_path)
    folder = (tmp_path / next(iter(written))).parent
    monkeypatch.setattr(filters, "__path__", [*filters.__path__, str(folder)])
    importlib.invalidate_caches()
    made = filters.build_filter({"name": "blurred", "sigma_px": [2.0, 4.0]})
    images = torch.rand(3, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    chance = [torch.Generator().manual_seed(seed) for seed in range(3)]
    blurred = made(images, chance)
    assert blurred.shape == images.shape and (blurred >= 0).all() and (blurred <= 1).all()
    assert (blurred.std((1, 2, 3)) < 0.3 * images.std((1, 2, 3))).all()
    torch.testing.assert_close(made(images[2:], [torch.Generator().manual_seed(2)]), blurred[2:])
    with pytest.raises(
        ConfigError, match=r"^control.sigma_px: expected two widths above 0, found \[6.0, 1.0\]"
    ):
        filters.build_filter({"name": "blurred", "sigma_px": [6, 1]})


def test_the_filter_teaches_a_controlnet_that_is_drawn_with(workspace: Path) -> None:
    page = PAGES / "filter.md"
    write_files(page, workspace)
    run_commands(page, workspace)
    facts = header(workspace / "outputs" / "blurred" / "weights" / "controlnet.safetensors")
    assert facts["filter"] == {"name": "blurred", "sigma_px": [2, 4]}
    drawn = next((workspace / "outputs" / "pictures").glob("*.png"))
    assert "outputs/blurred" in str(Image.open(drawn).info)


def test_the_sampler_is_of_order_2_draws_and_is_trained_with(workspace: Path) -> None:
    page = PAGES / "sampler.md"
    write_files(page, workspace)
    measured, *_ = run_commands(page, workspace)
    shown = next(block.text for block in blocks(page) if not block.language)
    errors, told = table_of(measured), table_of(shown)
    assert errors.keys() == told.keys()
    for name in errors:  # another processor rounds otherwise
        assert errors[name] == pytest.approx(told[name], rel=0.05)
    assert 3.5 < errors["adams"][-2] / errors["adams"][-1] < 4.5 and errors["euler"][-1] > errors["adams"][-1]
    picture = next((workspace / "outputs" / "pictures").glob("*.png"))
    assert "adams" in str(Image.open(picture).info)
    weights = workspace / "outputs" / "with_adams" / "weights" / "stage_c.safetensors"
    assert header(weights)["sampling"]["sampler"] == "adams"


def table_of(printed: str) -> dict[str, list[float]]:
    """Lines of a name and numbers."""
    return {line.split()[0]: [float(word) for word in line.split()[1:]] for line in printed.splitlines()}


def test_the_tracker_is_told_the_run_beside_the_table(workspace: Path) -> None:
    page = PAGES / "tracker.md"
    write_files(page, workspace)
    run_commands(page, workspace)
    run = workspace / "outputs" / "followed"
    told = [json.loads(line) for line in (run / "jsonl" / "metrics.jsonl").read_text().splitlines()]
    with (run / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["step"] for line in told] == [int(row["step"]) for row in table] == [5, 10, 15, 20]
    assert {"step", "loss", "psnr"} == set(told[0])
    assert len(list((run / "jsonl").glob("*.png"))) == 2


def test_the_recipe_trains_a_stage_c(workspace: Path) -> None:
    page = PAGES / "recipe.md"
    write_files(page, workspace)
    run_commands(page, workspace)
    facts = header(workspace / "outputs" / "near_noise" / "weights" / "stage_c.safetensors")
    assert facts["base"]["network"] == "stage_c" and facts["gdf"]
    with (workspace / "outputs" / "near_noise" / "metrics.csv").open() as file:
        assert float(list(csv.DictReader(file))[-1]["loss"]) > 0


def header(file: Path) -> dict[str, Any]:
    """What a file of one network says of it beside its config."""
    return next(iter(read_parts(file).values())).facts
