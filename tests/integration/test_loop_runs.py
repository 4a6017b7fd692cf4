"""The loop takes a recipe from settings to weights, reports, sheets and checkpoints."""

import csv
import json
from pathlib import Path

import torch
import yaml
from PIL import Image

from modules.weights import read_header, read_tensors
from train.config import config_from_plain
from train.loop import run


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_learns_and_leaves_its_folder_complete(plain_config, colour_recipe, tmp_path) -> None:
    config = config_from_plain(plain_config(run={"num_steps": 40, "sample_every": 20, "save_every": 20}))
    summary = run(config, colour_recipe())
    folder = tmp_path / "run"
    rows = metrics(folder)
    assert summary.step == 40 and not summary.interrupted and summary.skipped_steps == 0
    assert [int(row["step"]) for row in rows] == list(range(1, 41))
    losses = [float(row["loss"]) for row in rows]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    for name in ("error", "gradient_norm", "learning_rate", "samples_per_second", "data_wait_share"):
        assert float(rows[-1][name]) >= 0
    assert rows[-1]["samples"] == "160" and rows[-1]["skipped_steps"] == "0"
    assert sorted(p.name for p in (folder / "samples").iterdir()) == [
        "step_00000020.png",
        "step_00000040.png",
    ]
    assert Image.open(folder / "samples" / "step_00000040.png").size[0] > 200
    assert read_header(folder / "weights" / "colour_net.safetensors")["colour"] == "mean"
    assert (folder / "exported.txt").exists()
    assert yaml.safe_load((folder / "config.yaml").read_text())["run"]["num_steps"] == 40
    start = json.loads((folder / "run.json").read_text())["starts"][0]
    assert start["step"] == 40 and start["versions"]["torch"] == torch.__version__ and start["command"]


def test_the_average_of_the_weights_is_exported_beside_them(plain_config, colour_recipe, tmp_path) -> None:
    run(config_from_plain(plain_config()), colour_recipe())
    weights = read_tensors(tmp_path / "run" / "weights" / "colour_net.safetensors")
    averages = read_tensors(tmp_path / "run" / "weights" / "colour_net_ema.safetensors")
    assert weights.keys() == averages.keys()
    assert not torch.equal(weights["last.weight"], averages["last.weight"])
