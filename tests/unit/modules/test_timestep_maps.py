"""The timestep mappers of a whole network as one product, against each by itself."""

from typing import Any

import pytest
import torch
from torch import nn

from modules.adapters.lora import LoRA
from modules.blocks import TimestepBlock
from modules.stage_b import StageB
from modules.timestep_maps import TimestepMaps
from tests.unit.modules.conftest import STAGE_B


def timestep_blocks(network: nn.Module) -> list[TimestepBlock]:
    return [module for module in network.modules() if isinstance(module, TimestepBlock)]


@pytest.fixture
def timestep(network: StageB) -> torch.Tensor:
    """[2, c_r of the noise condition and each of its companions]."""
    torch.manual_seed(0)
    return torch.randn(2, network.sizes.c_r * (1 + len(network.sizes.t_conds)))


def test_every_block_is_given_what_its_own_mappers_make(network: Any, timestep: torch.Tensor) -> None:
    mapped = network.map_timesteps()(timestep)
    assert mapped.keys() == {*timestep_blocks(network)}
    for block, found in mapped.items():
        torch.testing.assert_close(found, block.map(timestep))


def test_blocks_need_their_mappers_no_more(network: Any, inputs: Any) -> None:
    given = inputs("stage_b" if isinstance(network, StageB) else "stage_c")
    expected = network(**given)
    prepared = network.prepare(**{key: value for key, value in given.items() if key != "r"})
    for block in timestep_blocks(network):
        nn.init.constant_(block.mapper.weight, torch.nan)  # type: ignore[arg-type]
    torch.testing.assert_close(network(**given, prepared=prepared), expected)


def test_a_block_with_an_adapter_or_that_is_waited_for_maps_by_itself(
    network: Any, inputs: Any, timestep: torch.Tensor
) -> None:
    name, waited_for = "down_blocks.0.1.mapper_sca", network.get_submodule("up_blocks.0.1")
    waited_for.register_forward_pre_hook(lambda *_: None)
    lora = LoRA.create(network, {name: 2})
    for parameter in lora.parameters():
        nn.init.normal_(parameter)
    lora.attach(network)
    left_out = {waited_for, network.get_submodule("down_blocks.0.1")}
    assert network.map_timesteps()(timestep).keys() == {*timestep_blocks(network)} - left_out
    given = inputs("stage_b" if isinstance(network, StageB) else "stage_c")
    prepared = network.prepare(**{key: value for key, value in given.items() if key != "r"})
    torch.testing.assert_close(network(**given, prepared=prepared), network(**given))


def test_what_is_beyond_half_is_mapped_in_float32(network: Any, timestep: torch.Tensor) -> None:
    block = timestep_blocks(network)[0]
    nn.init.constant_(block.mapper.weight, 3e4)  # type: ignore[arg-type]
    expected = block.map(10 * timestep.abs())
    assert expected.max() > torch.finfo(torch.float16).max
    found = network.half().map_timesteps()(10 * timestep.abs().half())
    torch.testing.assert_close(found[block], expected, atol=1.0, rtol=1e-2)


def test_a_network_without_timestep_blocks_has_nothing_to_map() -> None:
    assert TimestepMaps.of(StageB(**{**STAGE_B, "level_config": ["C", "CA", "CAF"]})._blocks()) is None
