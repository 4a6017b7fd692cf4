"""Files without a header of ours, as the official checkpoints are: recognised, and sampled as released."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from gdf import RELEASED_SAMPLING, RELEASED_SPEC
from inference import Cascade, Request, StageSettings
from inference.settings import RELEASED_FACTS
from modules import build

UNET = {"c_r": 64, "c_cond": 64, "c_hidden": [64, 64], "blocks": [[1, 1], [1, 1]]}
NETWORKS: dict[str, dict[str, Any]] = {
    "stage_a": {"bottleneck_blocks": 1, "c_hidden": 16, "codebook_size": 32},
    "stage_b": {
        **UNET,
        "nhead": [-1, 1],
        "level_config": ["CT", "CTA"],
        "block_repeat": [[1, 1], [1, 1]],
        "dropout": 0.0,
        "c_clip": 12,
    },
    "stage_c": {**UNET, "nhead": [1, 1], "c_clip_text": 16, "c_clip_text_pooled": 12, "c_clip_img": 12},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("official")
    paths = {name: str(folder / f"{name}.safetensors") for name in NETWORKS}
    for name, config in NETWORKS.items():
        save_file(build(name, config).state_dict(), paths[name])
    return paths


def test_pictures_from_official_files(files: dict[str, str], tiny_runs: Path) -> None:
    cascade = Cascade.load(device="cpu", text_encoder=str(tiny_runs / "stage_c" / "text_encoder"), **files)
    steps = {"stage_c": StageSettings(steps=1), "stage_b": StageSettings(steps=1)}
    [picture] = cascade.generate("a", width_px=90, height_px=60, **steps)
    assert picture.image.size == (90, 60)
    [[request]] = cascade.batches([Request()], 1)
    assert request.size == (1024, 1024)
    assert asdict(request.stage_c) == asdict(RELEASED_SAMPLING["stage_c"])
    assert asdict(request.stage_b) == asdict(RELEASED_SAMPLING["stage_b"])
    assert cascade.stages.grid_c(request.size) == (24, 24)  # factor 42.67


def test_released_settings() -> None:
    c, b = RELEASED_FACTS["stage_c"], RELEASED_FACTS["stage_b"]
    assert (c["compression"], b["compressor_scale"]) == (42.67, 0.75)
    assert c["gdf"] == b["gdf"] == RELEASED_SPEC


def test_a_pipeline_says_how_far_it_compresses(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior" / "config.json").write_text("{}")
    (tmp_path / "model_index.json").write_text('{"resolution_multiple": 21.5}')
    shutil.copy(files["stage_c"], tmp_path / "prior" / "diffusion_pytorch_model.safetensors")
    networks = Cascade.load(str(tmp_path), device="cpu").networks
    assert networks.facts("stage_c")["compression"] == 21.5


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", r"model_index\.json is not readable"),
        (
            '{"resolution_multiple": 0}',
            r"model_index\.json\.resolution_multiple: expected at least 1",
        ),
        ('{"resolution_multiple": "many"}', "resolution_multiple: expected a number, found 'many'"),
    ],
)
def test_an_index_that_cannot_be_is_named(
    index: str, message: str, files: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior" / "config.json").write_text("{}")
    (tmp_path / "model_index.json").write_text(index)
    shutil.copy(files["stage_c"], tmp_path / "prior" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=message):
        Cascade.load(str(tmp_path), device="cpu").networks.facts("stage_c")


def test_they_name_no_text_encoder(files: dict[str, str]) -> None:
    with pytest.raises(FileNotFoundError, match="text_encoder: .* names none; set weights.text_encoder="):
        Cascade.load(device="cpu", **files).batches([Request()], 1)


def test_a_file_of_another_network_is_told_before_anything_is_built(files: dict[str, str]) -> None:
    swapped = {**files, "stage_a": files["stage_b"], "text_encoder": "any"}
    with pytest.raises(ValueError, match="stage_a: .* holds the network stage_b"):
        Cascade.load(device="cpu", **swapped).batches([Request()], 1)
