"""A cascade of very small, untrained networks in a folder of runs, as training leaves it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

WORDS = ["a", "red", "blue", "circle", "square"]
CLIP_SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GDF_SPEC: dict[str, Any] = {
    "schedule": {"name": "CosineSchedule", "clamp_range": [0.0001, 0.9999]},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "VTarget"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "ConstantLossWeight"},
}
UNET = {
    "c_r": 8,
    "c_cond": 16,
    "c_hidden": [16, 16],
    "nhead": [2, 2],
    "blocks": [[1, 1], [1, 1]],
    "dropout": 0.0,
}
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # name: run, config, facts
    "stage_a": ("stage_a", {"bottleneck_blocks": 1, "c_hidden": 16, "codebook_size": 32}, {}),
    "semantic_compressor": (
        "stage_b",
        {
            "backbone": {
                "stages": [
                    ["fused", 1, 3, 1, 8, 8, 1],
                    ["fused", 2, 3, 2, 8, 8, 1],
                    ["fused", 2, 3, 2, 8, 8, 1],
                ],
                "c_last": 8,
            }
        },
        {},
    ),
    "stage_b": (
        "stage_b",
        {**UNET, "level_config": ["CT", "CTA"], "block_repeat": None, "c_clip": 12},
        {"gdf": GDF_SPEC, "compressor_scale": 0.75, "text_encoder": "text_encoder"},
    ),
    "stage_c": (
        "stage_c",
        {**UNET, "c_clip_text": 16, "c_clip_text_pooled": 12, "c_clip_img": 12},
        {"gdf": GDF_SPEC, "compression": 8 / 0.75, "text_encoder": "text_encoder", "image_size_px": 32},
    ),
    "previewer": ("previewer", {"c_hidden": 16}, {}),
}


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the runs stage_a, stage_b, stage_c, previewer, and image_encoder, which is no run."""
    from modules import build
    from modules.encoders import ImageEncoder, TextEncoder
    from modules.weights import save_network

    folder = tmp_path_factory.mktemp("runs")
    for name, (run, config, facts) in NETWORKS.items():
        for suffix, seed in (("", 1), ("_ema", 0)):
            network = random_network(build, name, config, seed)
            (folder / run / "weights").mkdir(parents=True, exist_ok=True)
            save_network(folder / run / "weights" / f"{name}{suffix}.safetensors", network, name, facts)
    text_config = {**CLIP_SIZES, "projection_dim": 12}
    text_encoder = TextEncoder(config=text_config, words=WORDS, max_length=12)
    for run in ("stage_b", "stage_c"):
        text_encoder.save(folder / run / "text_encoder")
    ImageEncoder(config={**text_config, "image_size": 32, "patch_size": 16}).save(folder / "image_encoder")
    return folder


def random_network(build: Any, name: str, config: dict[str, Any], seed: int) -> nn.Module:
    """A network every parameter of which has a value that matters; fresh ones put out zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(name, config)
        for parameter in network.parameters():
            parameter.data.add_(0.2 * torch.randn(parameter.shape))
    return network
