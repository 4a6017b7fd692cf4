"""A cascade of the tiny experiments' sizes, untrained, from which they can go on."""

from pathlib import Path
from typing import Any

import yaml

from modules import build
from modules.encoders import TextEncoder
from modules.weights import save_network
from tests.conftest import random_network

CONFIGS = Path(__file__).parents[2] / "configs"
RUNS = {  # of each network
    "stage_a": "stage_a",
    "semantic_compressor": "stage_b",
    "stage_b": "stage_b",
    "stage_c": "stage_c",
    "previewer": "previewer",
}


def write_trainable(folder: Path) -> Path:
    """Write a folder of runs; returns it."""
    encoder = config("model/text_encoder/tiny")
    text = TextEncoder(config=encoder["config"], words=encoder["words"], max_length=encoder["max_length"])
    diffusion = config("gdf/x0_target")
    shared = {"gdf": diffusion, "text_encoder": "text_encoder"}
    sampling = {"steps": 2, "guidance": 2.0, "shift": 1.0, "sampler": "ddim", "rescale": 0.0}
    facts: dict[str, dict[str, Any]] = {
        "stage_c": {**shared, "sampling": sampling, "compression": 8.0, "image_size_px": 64},
        "stage_b": {**shared, "sampling": sampling, "compressor_scale": 1.0},
    }
    for name, run in RUNS.items():
        network = random_network(build, name, config(f"model/{name}/tiny")["config"], seed=0)
        (folder / run / "weights").mkdir(parents=True, exist_ok=True)
        save_network(folder / run / "weights" / f"{name}.safetensors", network, name, facts.get(name, {}))
    for run in ("stage_b", "stage_c"):
        text.save(folder / run / "text_encoder")
    return folder


def taken_from(folder: Path, *names: str) -> list[str]:
    """Settings of a training that takes these networks from there."""
    return [f"model.{name}.weights={folder / RUNS[name]}" for name in names]


def config(name: str) -> dict[str, Any]:
    """One of the project's own files of settings."""
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return found
