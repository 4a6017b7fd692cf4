"""`precompute` reads a training's settings, and says in one line what it cannot use."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_tools.__main__ import main
from dataset_tools.precomputing.networks import Networks
from dataset_tools.precomputing.settings import read_settings
from modules.settings import NetworkSettings, TextEncoderSettings

COMPRESSOR = {"config": {}, "weights": "c.safetensors"}
STAGE_C: dict[str, Any] = {
    "name": "anything",
    "run": {"dir": "outputs/${name}", "seed": 4, "num_steps": 10},
    "recipe": {"name": "stage_c", "compressor_scale": 0.5, "image_kept": 0.1},
    "data": {"shards": "???", "image_size_px": 64, "multiple_px": 8, "crop": "random"},
    "model": {
        "semantic_compressor": COMPRESSOR,
        "text_encoder": {"source": "text"},
        "stage_a": {"weights": "a.safetensors"},
        "image_encoder": None,
        "stage_c": {"config": {"c_r": 8}},
    },
    "optim": {"lr": 1.0},
}


def read(tmp_path: Path, plain: Any, *given: str, skip: tuple[str, ...] = ()) -> Any:
    file = tmp_path / "config.yaml"
    file.write_text(plain if isinstance(plain, str) else yaml.safe_dump(plain))
    return read_settings(file, given, skip)


def test_what_decides_about_latents_is_taken_from_a_training(tmp_path: Path) -> None:
    found = read(tmp_path, STAGE_C)
    assert (found.data.image_size_px, found.data.crop, found.run.seed) == (64, "random", 4)
    assert found.recipe.compressor_scale == 0.5
    assert found.networks == {
        "semantic_compressor": NetworkSettings(weights="c.safetensors"),
        "text_encoder": TextEncoderSettings(source="text"),  # but not Stage A, which only draws sheets
    }


def test_single_settings_go_before_the_file(tmp_path: Path) -> None:
    wrapped = {**STAGE_C, "recipe": {"name": "lora", "base": STAGE_C["recipe"]}}
    for plain in (STAGE_C, wrapped):
        given = (
            "data.flip=0.5",
            "recipe.compressor_scale=0.75",
            "model.text_encoder.source=other",
            "run.seed=9",
        )
        found = read(tmp_path, plain, *given, skip=("semantic_compressor",))
        assert (found.data.flip, found.recipe.compressor_scale, found.run.seed) == (0.5, 0.75, 9)
        assert found.networks == {"text_encoder": TextEncoderSettings(source="other")}


def test_no_file_is_needed() -> None:
    found = read_settings(None, ["model.stage_a.weights=a.safetensors", "data.aspect_ratios=[1/1, 3/4]"], ())
    assert found.networks == {"stage_a": NetworkSettings(weights="a.safetensors")}
    assert found.data.aspect_ratios == ["1/1", "3/4"]


def stage_b(**compressor: Any) -> dict[str, Any]:
    model = {"semantic_compressor": {**COMPRESSOR, **compressor}, "stage_a": {"weights": "a"}}
    return {**STAGE_C, "recipe": {"name": "stage_b"}, "model": model}


@pytest.mark.parametrize(
    ("plain", "given", "message"),
    [
        ("[1, 2]", (), "--config .*: expected a training's settings, .*; found a list$"),
        ("", (), "--config .*: expected a training's settings, .*; found an empty file$"),
        ("a: [", (), "--config .*: not YAML"),
        ({"data": 3}, (), "data: expected settings, found 3"),
        ({"model": {"stage_a": "a"}}, (), "stage_a: expected settings, found 'a'"),
        ({}, (), "model.*missing; name the networks"),
        ({"model": {"stage_a": {"weights": None}}}, (), "model.stage_a.weights: missing"),
        (STAGE_C, ("data.crp=center",), "data.crp: unknown key; did you mean 'crop'"),
        (STAGE_C, ("data.crop=centre",), "data.crop: 'centre' is unknown; did you mean 'center'"),
        (
            STAGE_C,
            ("optim.lr=1",),
            "optim.lr=1: a setting that is not read here; expected one of: data",
        ),
        (STAGE_C, ("data.crop",), "data.crop: no setting; expected KEY=VALUE"),
        (STAGE_C, ("data.crop=[",), "data.crop: not a value that can be read"),
        (STAGE_C, ("data.crop.x=1",), "data.crop.x: crop holds no settings, found 'random'"),
        (STAGE_C, ("run.seed=many",), "run.seed: expected a whole number, found 'many'"),
        (STAGE_C, ("data.control={name: canny}",), "data.control: control pictures are made of pixels"),
        (stage_b(), (), "model.semantic_compressor.train: expected false"),
        (stage_b(train=False), (), r"recipe.random_scale: expected \[1, 1\]"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, plain: Any, given: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, plain, *given)
    assert "\n" not in " ".join(str(caught.value).split())


def test_settings_may_stand_behind_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert (
        main(["precompute", "none", str(out), "--versions", "2", "model.stage_a.weights=a", "data.crp=1"])
        == 2
    )
    assert "data.crp: unknown key" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["pack", "none", str(out), "--quality", "2", "data.crop=center"])
    assert "unrecognized arguments: data.crop=center" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "--device: found 'gpu'; expected one of"),
        ("cuda:77", "--device: 'cuda:77' cannot be used here"),
    ],
)
def test_a_device_that_is_not_here_is_said(device: str, message: str) -> None:
    settings = read_settings(None, ["model.stage_a.weights=a.safetensors"], ())
    with pytest.raises(ValueError, match=message):
        Networks(settings, "bf16", device, 0)
