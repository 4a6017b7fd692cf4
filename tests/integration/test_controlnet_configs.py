"""The ControlNets of released size that the configs name have the released weights' names and shapes."""

import json
from pathlib import Path

import pytest
import torch

import modules
from modules.adapters.controlnet import check_fits
from tests.integration.test_experiments import composed

MANIFESTS = Path(__file__).parents[1] / "golden" / "manifests"


@pytest.mark.parametrize("name", ["canny", "inpainting", "super_resolution", "identity"])
def test_a_released_controlnet_has_the_released_tensors(name: str) -> None:
    plain = composed("finetune/controlnet_canny_3_6b", f"model/controlnet={name}")
    with torch.device("meta"):
        network = modules.build("controlnet", plain["model"]["controlnet"]["config"])
    manifest = json.loads((MANIFESTS / f"controlnet_{name}.json").read_text())
    assert {key: list(t.shape) for key, t in network.state_dict().items()} == manifest["state_dict"]


@pytest.mark.parametrize(
    ("experiment", "control", "num_parameters"),
    [
        ("controlnet_canny_1b", "canny", 49_012_896),
        ("controlnet_canny_3_6b", "canny", 54_255_776),
        ("controlnet_inpainting_3_6b", "inpainting", 54_256_424),
        ("controlnet_super_resolution_3_6b", "super_resolution", 203_491_584),
    ],
)
def test_experiments_fit_filter_and_base(experiment: str, control: str, num_parameters: int) -> None:
    plain = composed(f"finetune/{experiment}")
    with torch.device("meta"):
        network, base = (
            modules.build(name, plain["model"][name]["config"]) for name in ("controlnet", "stage_c")
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters
    check_fits(network, base)
    assert plain["data"]["control"] == {"name": control}
    assert plain["recipe"]["name"] == "controlnet" and plain["recipe"]["base"]["name"] == "stage_c"
