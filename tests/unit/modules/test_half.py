"""fp16 where activations are larger than its numbers (65504), as those of the released weights are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.adapters.lora import LoRA
from modules.blocks import Block, ResBlock
from modules.mixing import ChannelMixer
from modules.response_norm import GlobalResponseNorm

LARGEST = torch.finfo(torch.float16).max


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


class Largest:
    """The largest number that modules of a kind ever gave."""

    def __init__(self, network: nn.Module, *kinds: type[nn.Module]) -> None:
        self.value = 0.0
        for module in network.modules():
            if isinstance(module, kinds):
                module.register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.value = max(self.value, output.abs().max().item())


def loud_mixer() -> ChannelMixer:
    """One that lifts its strongest channels beyond fp16."""
    mixer = ChannelMixer(64, 64, 0.0)
    with torch.no_grad():
        mixer[0].weight[0] *= 600  # one channel much stronger than all others, which the norm lifts further
        mixer[2].gamma.uniform_(1, 3)
        mixer[2].beta.normal_()
    return mixer


def assert_near(found: Tensor, expected: Tensor, share: float) -> None:
    assert found.isfinite().all()
    assert (found - expected).abs().max() < share * expected.abs().max()


def test_channel_mixing_does_not_overflow() -> None:
    mixer, x = loud_mixer(), torch.nn.functional.layer_norm(torch.randn(2, 8, 8, 64), (64,))
    inside, result = Largest(mixer, GlobalResponseNorm), mixer(x)
    assert inside.value > LARGEST
    found = mixer.half()(x.half())
    assert found.dtype == torch.float32
    assert_near(found, result, 0.01)


def test_channel_mixing_of_quiet_channels_keeps_its_precision() -> None:
    mixer, x = ChannelMixer(64, 64, 0.0), torch.randn(2, 8, 8, 64)
    nn.init.normal_(mixer[2].gamma, std=0.1)
    with torch.no_grad():
        mixer[4].weight *= 0.05
        mixer[4].bias.normal_(std=0.3)
    expected = mixer(x)
    assert_near(mixer.half()(x.half()), expected, 0.002)


def loud(make: Any, name: str, **changes: Any) -> nn.Module:
    """A network whose stream grows beyond fp16."""
    network = make(name, **changes)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ChannelMixer):
                module[2].gamma += 1
            if isinstance(module, ResBlock):
                module.channelwise[4].weight *= 3e4
                module.channelwise[4].bias *= 3e4
    return network


@pytest.mark.parametrize(
    ("name", "changes"),
    [("stage_b", {}), ("stage_c", {"switch_level": True}), ("stage_c", {"block_repeat": [[1, 2], [2, 1]]})],
)
def test_a_network_whose_stream_outgrows_fp16(
    name: str, changes: dict[str, Any], make: Any, inputs: Any
) -> None:
    network, given = loud(make, name, **changes), inputs(name)
    largest = Largest(network, Block)
    with torch.no_grad():
        expected = network(**given)
        assert largest.value > LARGEST
        largest.value = 0.0
        found = network.half()(**given)
    assert largest.value > LARGEST  # what overflowed was not clipped
    assert_near(found, expected, 0.03)


@pytest.mark.parametrize("name", ["stage_b", "stage_c"])
def test_half_is_nearer_than_bfloat16(name: str, make: Any, inputs: Any) -> None:
    network, given = make(name), inputs(name)
    with torch.no_grad():
        expected = network(**given)
        errors = {dtype: (network.to(dtype)(**given) - expected).std() for dtype in (torch.float16,)}
        coarse = (make(name).bfloat16()(**given) - expected).std()
    assert errors[torch.float16] < 0.3 * coarse


def test_adapters_count_where_half_is_scaled(make: Any, inputs: Any) -> None:
    network, given = make("stage_c", block_repeat=[[1, 2], [1, 1]]), inputs("stage_c")
    lora = LoRA.create(network, {"*": 2})
    for parameter in lora.parameters():
        nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        plain = network(**given)
        lora.attach(network)
        expected = network(**given)
        lora.detach()
        network.half()
        lora.attach(network)
        found = network(**given)
    assert (expected - plain).std() > 0.1 * plain.std()
    assert (found - expected).std() < 0.02 * expected.std()


def test_control_and_prepared_conditions_in_half(make: Any, inputs: Any) -> None:
    network, given = make("stage_c"), inputs("stage_c")
    given["cnet"] = [torch.randn(2, 16, 2, 2)]
    with torch.no_grad():
        expected = network(**given)
        network.half()
        others = {key: value for key, value in given.items() if key not in ("x", "r")}
        found = network(**given, prepared=network.prepare(given["x"], **others))
    assert (found - expected).std() < 0.02 * expected.std()


@pytest.mark.parametrize("letters", ["T", "A", "C"])
def test_every_block_is_given_the_stream_in_float32(letters: str, make: Any, inputs: Any) -> None:
    network, given = make("stage_c", level_config=[letters] * 2, switch_level=True).half(), inputs("stage_c")
    found = set()
    for block in network.shard_units():
        block.register_forward_pre_hook(lambda module, args: found.add(args[0].dtype))
    with torch.no_grad():
        network(**given)
    assert found == {torch.float32}
