"""Small networks, and inputs that fit them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modules
from modules.encoders import ImageEncoder, TextEncoder
from modules.weights.conversion import gather
from modules.weights.lazy import lazy_state
from modules.weights.parts import Part
from tests.unit.modules.layout_cases import CLIP, SMALL

STAGE_B: dict[str, Any] = {
    "c_r": 8,
    "c_cond": 16,
    "c_hidden": [8, 16, 16],
    "nhead": [-1, 2, 4],
    "blocks": [[1, 2, 1], [1, 1, 2]],
    "block_repeat": [[1, 2, 1], [1, 1, 3]],
    "level_config": ["CT", "CTA", "CTAF"],
    "c_clip": 12,
    "c_clip_seq": 2,
    "c_effnet": 6,
    "dropout": 0.0,
}
STAGE_C: dict[str, Any] = {
    "c_in": 6,
    "c_out": 6,
    "c_r": 8,
    "c_cond": 16,
    "c_hidden": [16, 24],
    "nhead": [2, 3],
    "blocks": [[1, 2], [2, 1]],
    "c_clip_text": 12,
    "c_clip_text_pooled": 10,
    "c_clip_img": 7,
    "dropout": 0.0,
}


def randomise(network: nn.Module) -> None:
    """Move every parameter from its initial value, where many are zero."""
    rng = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=rng)


@pytest.fixture
def seed() -> None:
    """What torch draws is the same in every test."""
    torch.manual_seed(0)


@pytest.fixture(params=("stage_c", "stage_b"))
def network(request: pytest.FixtureRequest, make: Callable[..., Any]) -> Any:
    """Both diffusion networks in turn, small, frozen and without dropout."""
    return make(request.param).eval().requires_grad_(False)


@pytest.fixture
def make() -> Callable[..., Any]:
    """make("stage_b" | "stage_c", random=True, **changes): a small diffusion network."""

    def make(name: str, random: bool = True, **changes: Any) -> Any:
        torch.manual_seed(0)
        network = modules.build(name, {**(STAGE_B if name == "stage_b" else STAGE_C), **changes})
        if random:
            randomise(network)
        return network

    return make


@pytest.fixture
def inputs() -> Callable[..., dict[str, Tensor]]:
    """inputs("stage_b" | "stage_c", height, width): keywords of its forward, batch of two."""

    def inputs(name: str, height: int = 16, width: int = 24) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(2)

        def noise(*shape: int) -> Tensor:
            return torch.randn(2, *shape, generator=rng)

        r = torch.rand(2, generator=rng)
        if name == "stage_b":
            return {"x": noise(4, height, width), "r": r, "effnet": noise(6, 3, 2), "clip": noise(1, 12)}
        texts = {"clip_text": noise(5, 12), "clip_text_pooled": noise(1, 10), "clip_img": noise(1, 7)}
        return {"x": noise(6, height, width), "r": r, **texts}

    return inputs


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    """All networks and encoders, small where their structure allows it."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    TextEncoder(config={**CLIP, "hidden_act": "gelu"}, words=["red"], max_length=8).save(
        folder / "text_encoder"
    )
    picture = {**CLIP, "image_size": 32, "patch_size": 16, "hidden_act": "quick_gelu"}
    ImageEncoder(config=picture).save(folder / "image_encoder")
    networks = {name: modules.build(name, config) for name, config in SMALL.items()}
    found = gather(folder)
    for name, network in networks.items():
        found[name] = Part(name, network.config, lazy_state(network.state_dict()), {"note": name})
    return found
