"""ControlNets see control pictures of the size of their training."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from inference.adapters import ControlSettings
from inference.controls import ControlNets
from inference.networks import Networks
from inference.settings import Request, Weights
from modules import build
from modules.weights import save_network

GRID = (8, 4)  # of Stage C's latents


@pytest.mark.parametrize(
    ("facts", "maps"),
    [
        ({}, (8, 4)),  # as released: as many pixels as make one map value per latent
        ({"control_px_per_latent": 8.0}, (4, 2)),
        ({"control_px_per_latent": 16 / 0.75}, (11, 6)),  # a compressor that saw pictures shrunk
    ],
)
@torch.inference_mode()
def test_a_control_picture_has_the_pixels_per_latent_that_the_file_says(
    facts: dict, maps: tuple[int, int], tmp_path: Path
) -> None:
    stages = [["fused", 1, 3, 2, 8, 8, 1]] * 3  # and a stem that halves: factor 16
    backbone = {"stages": stages, "c_last": 8}
    network = build("controlnet", {"c_in": 3, "c_proj": 8, "proj_blocks": [1], "backbone": backbone})
    save_network(tmp_path / "controlnet.safetensors", network, "controlnet", facts)
    Image.new("RGB", (40, 80)).save(tmp_path / "control.png")
    paths = (str(tmp_path / name) for name in ("controlnet.safetensors", "control.png"))
    control = ControlSettings(next(paths), image=next(paths), raw=True)
    request = Request(prompt="", controls=(control,), height_px=80, width_px=40)
    device = torch.device("cpu")
    networks = Networks(None, Weights(), ema=True, device=device, dtype="fp32")
    (found,) = ControlNets(networks).maps([request], GRID, None)
    assert found[0] is None and found[1] is not None
    assert tuple(found[1].shape[-2:]) == maps
