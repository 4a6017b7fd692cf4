"""What a ControlNet changes, and what several of them do together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modules
from modules import SemanticCompressor
from modules.adapters.controlnet import ControlNet, combine
from modules.weights import load_network, save_network
from tests.unit.modules.conftest import randomise

STAGES: dict[str, Any] = {"stages": [["fused", 1, 3, 2, 8, 8, 1], ["fused", 2, 3, 2, 8, 16, 2]], "c_last": 24}
SIMPLE: dict[str, Any] = {"c_in": 4, "c_proj": 16, "proj_blocks": [0, 3], "bottleneck_mode": "simple"}
EFFNET: dict[str, Any] = {"c_in": 1, "c_proj": 16, "proj_blocks": [0, 5], "backbone": STAGES}


def small(seed: int = 0, **config: Any) -> ControlNet:
    torch.manual_seed(seed)
    return ControlNet(**config).eval()


@pytest.mark.parametrize("config", [SIMPLE, EFFNET], ids=["simple", "effnet"])
def test_a_fresh_one_changes_nothing_and_can_learn(
    config: dict[str, Any], make: Callable[..., Any], inputs: Callable[..., dict[str, Tensor]]
) -> None:
    base, given = make("stage_c", c_hidden=[16, 16], nhead=[2, 2]).eval(), inputs("stage_c")
    network, picture = small(**config), torch.rand(2, config["c_in"], 32, 48)
    plain, controlled = base(**given), base(**given, cnet=network(picture))
    assert torch.equal(plain, controlled)
    (controlled - torch.randn_like(plain)).square().mean().backward()
    for project in network.projections:
        assert project.get_parameter("2.weight").grad.abs().sum() > 0
    randomise(network)
    assert not torch.allclose(plain, base(**given, cnet=network(picture)))


@pytest.mark.parametrize(("c_in", "size"), [(1, (32, 48)), (3, (32, 48)), (3, (31, 41)), (4, (64, 32))])
def test_effnet_makes_a_grid_of_its_factor(c_in: int, size: tuple[int, int]) -> None:
    network = small(**EFFNET | {"c_in": c_in})
    controls = network(torch.rand(2, c_in, *size))
    grid = tuple(-(-side // network.factor) for side in size)
    assert network.factor == 8
    assert [None if c is None else tuple(c.shape) for c in controls] == [
        (2, 16, *grid), None, None, None, None, (2, 16, *grid)
    ]  # fmt: skip


def test_gradients_reach_every_parameter_in_all_bottlenecks() -> None:
    for config in (SIMPLE, EFFNET):
        network = small(**config)
        randomise(network)
        total = sum(
            c.square().mean() for c in network(torch.rand(2, config["c_in"], 16, 16)) if c is not None
        )
        total.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_shard_units_hold_all_parameters() -> None:
    with torch.device("meta"):
        networks = [small(**SIMPLE), small(**EFFNET), small(c_in=16, bottleneck_mode="large")]
    for network in networks:
        inside = sum(p.numel() for unit in network.shard_units() for p in unit.parameters())
        assert inside == sum(p.numel() for p in network.parameters())


def test_it_is_stored_and_loaded_with_its_facts(tmp_path: Path) -> None:
    network = small(**EFFNET)
    randomise(network)
    file = tmp_path / "controlnet.safetensors"
    save_network(file, network, "controlnet", {"filter": {"name": "canny"}})
    again = load_network(file, "controlnet").eval()
    picture = torch.rand(1, 1, 24, 24)
    assert torch.equal(network(picture)[5], again(picture)[5])
    assert modules.weights.read_header(file)["filter"] == {"name": "canny"}


@pytest.mark.parametrize(("c_in", "same"), [(3, True), (4, False), (1, False)])
def test_backbone_of_a_compressor_can_be_adopted(c_in: int, same: bool) -> None:
    compressor = SemanticCompressor(backbone=STAGES).eval()
    network = small(**EFFNET | {"c_in": c_in})
    network.adopt_backbone(compressor)
    stem, adopted = compressor.backbone[0][0].weight, network.backbone[0][0].weight
    assert torch.equal(
        network.backbone[1][0].block[0][0].weight, compressor.backbone[1][0].block[0][0].weight
    )
    torch.testing.assert_close(adopted.sum(1), stem.sum(1))
    assert (adopted.shape == stem.shape) == same
    other = small(**SIMPLE)
    with pytest.raises(ValueError, match="the compressor's backbone is not this ControlNet's"):
        other.adopt_backbone(compressor)


def test_several_are_summed_block_by_block() -> None:
    one, two = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4)
    total = combine([[one, None], [two, None, two]], [1.0, -0.5])
    torch.testing.assert_close(total[0], one - 0.5 * two)
    assert total[1] is None
    torch.testing.assert_close(total[2], -0.5 * two)
    assert torch.equal(*combine([[one], [None, two]], [1.0, 0.0]), one)
    assert combine([[one]], [0.0]) == combine([], []) == []
    with pytest.raises(ValueError, match="one scale per ControlNet, found 1 for 2"):
        combine([[one], [two]], [1.0])


def test_maps_of_different_sizes_are_brought_to_the_largest() -> None:
    small_map, large_map = torch.full((1, 1, 2, 2), 3.0), torch.rand(1, 1, 4, 6)
    total = combine([[small_map], [large_map]], [1.0, 2.0])
    torch.testing.assert_close(total[0], 3.0 + 2.0 * large_map)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bottleneck_mode": "efnet"}, "'efnet' is not known; did you mean 'effnet'"),
        ({"proj_blocks": [1, 1]}, "proj_blocks: expected different block numbers"),
        ({"proj_blocks": []}, "proj_blocks: expected different block numbers"),
        ({"proj_blocks": [-1]}, "proj_blocks: expected different block numbers"),
        ({"bottleneck_mode": "effnet", "backbone": "vgg"}, "backbone: expected efficientnet_v2_s or stages"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ControlNet(**SIMPLE | changes)


def test_control_of_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"control: expected shape \[any, 4, any, any\]"):
        small(**SIMPLE)(torch.rand(1, 3, 8, 8))


def test_unreleased_numbers_of_projections_are_not_guessed() -> None:
    shapes = {f"projections.{i}.{j}.weight": (4, 4, 1, 1) for i in range(3) for j in (0, 2)}
    with pytest.raises(ValueError, match=r"ControlNet with 3 projections; expected one of \[8, 64\]"):
        modules.weights.official.recognise(shapes)


def test_a_network_in_bfloat16_takes_controls_in_float32(
    make: Callable[..., Any], inputs: Callable[..., dict[str, Tensor]]
) -> None:
    base, given = make("stage_c", c_hidden=[16, 16], nhead=[2, 2]).eval().bfloat16(), inputs("stage_c")
    network = small(**SIMPLE)
    randomise(network)
    assert not torch.equal(base(**given), base(**given, cnet=network(torch.rand(2, 4, 8, 8))))
