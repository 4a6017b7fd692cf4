"""How the demo's image prompts are judged: what is kept of the picture, and who wins against a text."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_tools.shapes import split_scenes, write_split
from dataset_tools.shapes_world import Scene, all_scenes, draw
from inference import Picture
from modules import StageC
from modules.adapters.ip_adapter import IPAdapter, attention_channels
from modules.encoders import ImageEncoder
from modules.weights import load_network, save_network
from scripts.adapter_scores import ip_adapter as scoring

SCENES = all_scenes()[::97]


def pictures(scenes: list[Scene]) -> list[Picture]:
    rng = np.random.default_rng(0)
    return [Picture(Image.fromarray(draw(s, rng)), {"prompt": "", "seed": i}) for i, s in enumerate(scenes)]


def test_the_other_colour_is_the_only_difference() -> None:
    scene = Scene("orange", "cross", "small", "top left", "grey")
    assert scoring.other_colour(scene) == scene._replace(colour="red")


def test_the_winner_of_a_contradiction_is_told() -> None:
    text, shape = "the text's colour", "the shape of both"
    picture = "the picture's colour"
    assert scoring.sharing(SCENES, pictures(SCENES)) == {text: 0.0, picture: 1.0, shape: 1.0}
    others = pictures([scoring.other_colour(scene) for scene in SCENES])
    assert scoring.sharing(SCENES, others[:5]) == {text: 1.0, picture: 0.0, shape: 1.0}


@pytest.fixture
def runs(tiny_runs: Path, tmp_path: Path) -> Path:
    """A folder of runs with held-out pictures and, in ip_adapter, an adapter with the encoder it reads."""
    for run in tiny_runs.iterdir():
        (tmp_path / run.name).symlink_to(run)
    write_split(tmp_path / "data" / "held_out", split_scenes()[1], 6, seed=1, varied=False)
    stage_c = load_network(tiny_runs, "stage_c")
    assert isinstance(stage_c, StageC)
    torch.manual_seed(0)
    encoder = ImageEncoder(source=str(tiny_runs / "image_encoder"))
    width = encoder.model.config.hidden_size
    adapter = IPAdapter(attention_channels(stage_c), width, 8, {"name": "patches"})
    for attention in adapter.ip_adapter:
        torch.nn.init.normal_(attention.to_v_ip.weight)
    (tmp_path / "ip_adapter" / "weights").mkdir(parents=True)
    facts = {"image_encoder": "image_encoder"}
    save_network(tmp_path / "ip_adapter/weights/ip_adapter.safetensors", adapter, "ip_adapter", facts)
    encoder.save(tmp_path / "ip_adapter" / "image_encoder")
    return tmp_path


def test_an_adapter_is_scored_and_leaves_no_trace_at_scale_0(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_ALONE": 6, "NUM_CONTRADICTED": 4, "NUM_SWITCHED_OFF": 3, "COLUMNS": 3}.items():
        monkeypatch.setattr(scoring, name, value)
    found = scoring.score(runs / "ip_adapter", tmp_path)
    lines = {line["what"]: line for line in found["figures"]}
    assert lines["picture without text: colour and shape kept"]["at_least"] == 0.85
    assert lines["scale 0 gives the bits of the text alone"]["measured"] == 1.0
    assert found["accuracy"]["alone"]["num_pictures"] == 6
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.width > 3 * 128
