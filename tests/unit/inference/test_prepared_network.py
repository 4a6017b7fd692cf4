"""The network as sampling sees it: what conditions alone determine is computed once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdf
from inference.inputs import Inputs
from inference.sampling import PreparedNetwork, sample
from modules import build

CONFIG = {"c_in": 4, "c_out": 4, "c_r": 8, "c_cond": 8, "c_hidden": [8], "nhead": [2], "blocks": [[1], [1]]}
CONFIG |= {"c_clip_text": 6, "c_clip_text_pooled": 6, "c_clip_img": 6, "level_config": ["CTA"]}


@pytest.fixture
def network() -> Any:
    torch.manual_seed(0)
    made = build("stage_c", CONFIG).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    return made


@pytest.fixture
def looked(network: nn.Module) -> list[int]:
    """Grows whenever the network looks at its conditions."""
    calls: list[int] = []
    network.clip_txt_mapper.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    return calls


def texts() -> dict[str, Tensor]:
    return {
        "clip_text": torch.randn(1, 3, 6),
        "clip_text_pooled": torch.randn(1, 1, 6),
        "clip_img": torch.randn(1, 1, 6),
    }


def test_conditions_are_looked_at_again_only_when_they_change(network: Any, looked: list[int]) -> None:
    prepared, given, r = PreparedNetwork(network), texts(), torch.rand(1)
    x = torch.randn(1, 4, 4, 4)
    for _ in range(3):
        torch.testing.assert_close(prepared(x, r, **given), network(x, r, **given))
    assert len(looked) == 1 + 3
    for change in (texts(), {**given, "cnet": [torch.randn(1, 8, 2, 2)]}, given):
        torch.testing.assert_close(prepared(x, r, **change), network(x, r, **change))
    assert len(looked) == 1 + 3 + 3 * 2


def test_the_same_conditions_for_another_batch_are_other_conditions(network: Any, looked: list[int]) -> None:
    prepared, given, r = PreparedNetwork(network), texts(), torch.rand(1)
    for size in (4, 6):
        prepared(torch.randn(1, 4, size, 4), r, **given)
    assert len(looked) == 2


def test_a_whole_trajectory_looks_once_at_its_conditions(network: Any, looked: list[int]) -> None:
    diffusion, noise = gdf.build(gdf.RELEASED_SPEC), torch.randn(1, 4, 4, 4)
    settings = gdf.SamplingSettings(steps=5, guidance=3.0)
    rng = [torch.Generator().manual_seed(0)]
    inputs = Inputs(texts(), texts())
    *_, latents = sample(network, diffusion, settings, inputs, noise, rng)
    assert latents.isfinite().all()
    assert len(looked) == 1
