"""fp16 in each kind of block and what lies between them, on a stream beyond its numbers, with adapters."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.adapters.ip_adapter import IPAdapter, attention_channels
from modules.adapters.lora import LoRA
from modules.adapters.quantised import quantise
from modules.blocks import (
    AttnBlock,
    Block,
    Conditions,
    FeedForwardBlock,
    ResBlock,
    TimestepBlock,
    UpDownBlock2d,
    resize,
)
from modules.mixing import BehindNorm, LayerNorm2d
from tests.unit.modules.conftest import randomise
from tests.unit.modules.test_half import LARGEST, Largest, assert_near, loud

C, C_COND, C_TIMESTEP = 32, 16, 8
BLOCKS: dict[str, Callable[[], Block]] = {
    "C": lambda: ResBlock(C),
    "C skip": lambda: ResBlock(C, C),
    "F": lambda: FeedForwardBlock(C),
    "T": lambda: TimestepBlock(C, C_TIMESTEP),
    "A": lambda: AttnBlock(C, C_COND, 2),
    "A tokens": lambda: AttnBlock(C, C_COND, 2, self_attn=False),
}
LAST = {  # the layer of each block that makes what is added, or multiplied, to the stream
    **dict.fromkeys(("C", "C skip", "F"), "channelwise.4"),
    "T": "mapper",
    **dict.fromkeys(("A", "A tokens"), "attention.attn.out_proj"),
}


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def frozen(network: Any) -> Any:
    randomise(network)
    return network.eval().requires_grad_(False)


def loud_stream() -> Tensor:
    """[2, C, 8, 6] in float32, two channels of which are far beyond fp16."""
    x = torch.randn(2, C, 8, 6)
    x[:, 3] *= 3e5
    x[:, 7] *= 1e5
    return x


def conditions(kind: str) -> Conditions:
    """A skip connection and a control, where the block takes them, beyond fp16 too."""
    tokens = torch.nn.functional.layer_norm(torch.randn(2, 5, C_COND), (C_COND,))
    cond = Conditions(torch.rand(2, C_TIMESTEP), tokens)
    if kind.startswith("C"):
        cond = cond._replace(control=2e5 * torch.randn(2, C, 4, 3))
    return cond._replace(skip=2e5 * torch.randn(2, C, 8, 6)) if kind == "C skip" else cond


def in_half(cond: Conditions) -> Conditions:
    return cond._replace(timestep=cond.timestep.half(), tokens=cond.tokens.half())


def added(block: Block, x: Tensor, cond: Conditions, prepared: bool) -> Tensor:
    """What the block itself adds to the stream, in float32."""
    if prepared:
        cond = cond._replace(projected=block.project(cond.tokens))
    found = block(x, cond)
    assert found.dtype == torch.float32 and found.abs().max() > LARGEST
    return found - (x if cond.control is None else x + resize(cond.control, *x.shape[-2:]))


@pytest.mark.parametrize("beside", ["nothing", "prepared conditions", "a LoRA", "8 bits"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_on_a_stream_beyond_fp16(kind: str, beside: str) -> None:
    block, x, cond = frozen(BLOCKS[kind]()), loud_stream(), conditions(kind)
    if beside == "8 bits":
        quantise(block, "int8")
    half, prepared = copy.deepcopy(block).half(), beside == "prepared conditions"
    if beside == "a LoRA":
        lora = LoRA.create(block, {"*": 2})
        for parameter in lora.parameters():
            nn.init.normal_(parameter, std=0.3)
        without = added(block, x, cond, prepared)
        lora.attach(block)
        expected = added(block, x, cond, prepared)
        assert (expected - without).std() > 0.1 * without.std()
        lora.detach()
        lora.attach(half)
    else:
        expected = added(block, x, cond, prepared)
    assert_near(added(half, x, in_half(cond), prepared), expected, 0.03)


@pytest.mark.parametrize("beside", ["nothing", "a LoRA"])
@pytest.mark.parametrize("kind", LAST)
def test_what_a_block_adds_may_be_beyond_fp16_itself(kind: str, beside: str) -> None:
    block, x = frozen(BLOCKS[kind]()), torch.randn(2, C, 8, 6)
    cond = conditions(kind)._replace(control=None)
    lora = LoRA.create(block, {LAST[kind]: 2})
    for layer in lora.layers.values():
        nn.init.normal_(layer.lora_down.weight)
        nn.init.normal_(layer.lora_up.weight, std=1e4)
    if beside == "nothing":
        block.get_parameter(f"{LAST[kind]}.weight").mul_(3e4)
    half = copy.deepcopy(block).half()
    expected, found = (
        with_lora(each, lora if beside == "a LoRA" else None, x, given)
        for each, given in ((block, cond), (half, in_half(cond)))
    )
    assert expected.abs().max() > LARGEST
    assert_near(found, expected, 0.01)


def with_lora(block: Block, lora: LoRA | None, x: Tensor, cond: Conditions) -> Tensor:
    if lora is None:
        return block(x, cond)
    lora.attach(block)
    found = block(x, cond)
    lora.detach()
    return found


@pytest.mark.parametrize("mode", ["up", "down"])
def test_between_levels(mode: str) -> None:
    scaler, x = frozen(BehindNorm(LayerNorm2d(C), UpDownBlock2d(C, C, mode))), loud_stream()
    for parameter in scaler.parameters():
        parameter.mul_(1e5 / parameter.abs().max() / 2)
    expected = scaler(x)
    assert expected.abs().max() > LARGEST
    assert_near(scaler.half()(x), expected, 0.01)


@pytest.mark.parametrize("kind", [None, "int8"])
@pytest.mark.parametrize("name", ["stage_b", "stage_c"])
def test_a_loud_network_with_all_that_goes_beside_it(name: str, kind: Any, make: Any, inputs: Any) -> None:
    network, given = loud(make, name).eval().requires_grad_(False), inputs(name)
    if name == "stage_c":
        given["cnet"] = [1e5 * torch.randn(2, 16, 2, 2), None, 1e5 * torch.randn(2, 24, 3, 2)]
    if kind is not None:
        quantise(network, kind)
    changes: list[Any] = [LoRA.create(network, {"*": 2})]
    if name == "stage_c":
        changes.append(IPAdapter(attention_channels(network), c_image=7, c_tokens=5))
        given["image_tokens"] = torch.randn(2, 3, 5)
    for parameter in (each for change in changes for each in change.parameters()):
        nn.init.normal_(parameter, std=0.2)
    expected = drawn(network, changes, given)
    assert_near(drawn(network.half(), changes, given), expected, 0.05)


def drawn(network: Any, changes: list[Any], given: dict[str, Any]) -> Tensor:
    """As sampling draws, with the adapters on; its stream has to be beyond fp16."""
    for change in changes:
        change.attach(network)
    largest = Largest(network, Block)
    conditions = {key: value for key, value in given.items() if key not in ("x", "r")}
    ready = network.prepare(given["x"], **conditions)
    found = network(given["x"], given["r"], **conditions, prepared=ready)
    for change in changes:
        change.detach()
    assert largest.value > LARGEST
    return found
