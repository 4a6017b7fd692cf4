"""Without settings of its own a picture is made as its weights say they are best sampled."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gdf import RELEASED_SAMPLING
from inference import Cascade, Request, StageSettings, open_picture, write_picture
from inference.config import Config
from inference.pictures import readable
from inference.recreate import recreate

FACT = {"steps": 3, "guidance": 1.0, "shift": 1.5, "sampler": "ddim", "rescale": 0.0}
STAGES = ("stage_c", "stage_b")


@pytest.fixture
def run(tiny_runs: Path, tmp_path: Path) -> Path:
    """A folder of runs whose headers say how they are best sampled."""
    folder = tmp_path / "runs"
    shutil.copytree(tiny_runs, folder)
    for stage in STAGES:
        say(folder, stage, FACT)
    return folder


def say(folder: Path, stage: str, sampling: Any) -> None:
    """Change the fact in a header."""
    path = folder / stage / "weights" / f"{stage}_ema.safetensors"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["kaskade"])
    tensors = load_file(path)
    save_file(tensors, path, metadata={"kaskade": json.dumps({**header, "sampling": sampling})})


def prepared(folder: Path, **settings: Any) -> Request:
    [[request]] = Cascade.load(str(folder), device="cpu").batches([Request(**settings)], 1)
    return request


def test_the_header_decides_what_is_left_open(run: Path) -> None:
    steps = []
    [picture] = Cascade.load(str(run), device="cpu").generate("a", on_step=steps.append)
    assert [(step.stage, step.steps) for step in steps] == [(stage, 3) for stage in STAGES for _ in range(3)]
    assert picture.facts["stage_c"] == picture.facts["stage_b"] == FACT


def test_what_is_chosen_wins(run: Path) -> None:
    request = prepared(run, stage_c=StageSettings(steps=5, guidance=(4.0, 1.0)))
    assert asdict(request.stage_c) == {**FACT, "steps": 5, "guidance": (4.0, 1.0)}
    assert asdict(request.stage_b) == FACT


def test_released_settings_where_the_header_says_nothing(tiny_runs: Path) -> None:
    request = prepared(tiny_runs)
    for stage in STAGES:
        assert asdict(getattr(request, stage)) == asdict(RELEASED_SAMPLING[stage])


def test_a_picture_keeps_its_settings_when_its_weights_name_others(run: Path, tmp_path: Path) -> None:
    [picture] = Cascade.load(str(run), device="cpu").generate("a", 4)
    path = write_picture(picture, tmp_path)
    for stage in STAGES:
        say(run, stage, {**FACT, "steps": 1})
    again, verdict = recreate(Config(recreate=str(path)))
    assert verdict == "the same pixels"
    assert again.facts["stage_c"] == open_picture(path).facts["stage_c"]


def test_stages_that_take_no_part_are_not_told(run: Path, tmp_path: Path) -> None:
    [picture] = Cascade.load(str(run), device="cpu").generate("a", task="preview")
    path = write_picture(picture, tmp_path)
    assert "Decoder" not in readable(picture.facts)
    assert "Steps: 3, Sampler: ddim" in readable(picture.facts)
    assert recreate(Config(recreate=str(path)))[1] == "the same pixels"


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({**FACT, "sampler": "plms"}, "stage_c_ema.safetensors: sampling.sampler: found 'plms'"),
        ({"stepz": 3}, "stage_c_ema.safetensors: sampling.stepz: unknown key; did you mean 'steps'"),
        (3, "stage_c_ema.safetensors: its header.sampling: expected settings"),
    ],
)
def test_a_header_that_makes_no_sense_is_told_with_its_file(run: Path, sampling: Any, message: str) -> None:
    say(run, "stage_c", sampling)
    with pytest.raises(ValueError, match=message):
        prepared(run)
