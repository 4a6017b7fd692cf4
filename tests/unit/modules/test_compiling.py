"""How often blocks are compiled. The compiler's first half is enough for that: it makes the graphs."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from modules.adapters.ip_adapter import IPAdapter, attention_channels
from modules.adapters.lora import LoRA
from modules.compiling import compile_blocks

SIZES = ((24, 24), (16, 24), (32, 40), (24, 16), (40, 40), (26, 42))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A compiler that knows nothing yet."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


# Stage C: two widths of each of C, T and A, and C with a skip connection. Stage B: two widths of C and T, two
# numbers of heads of A, one F, and C with a skip connection of two widths.
@pytest.mark.parametrize(("name", "kinds"), [("stage_c", 7), ("stage_b", 9)])
@pytest.mark.parametrize("learns", [True, False])
def test_every_kind_of_block_is_compiled_once_for_all_sizes(
    name: str, kinds: int, learns: bool, make: Any, inputs: Any
) -> None:
    network, plain = make(name), make(name)
    compile_blocks(network, backend="eager")
    with torch.set_grad_enabled(learns):
        for size in SIZES:
            given = inputs(name, *size)
            torch.testing.assert_close(network(**given), plain(**given), atol=1e-5, rtol=1e-5)
            assert graphs() == kinds


def test_adapters_may_come_and_go(make: Any, inputs: Any) -> None:
    network, plain, given = make("stage_c"), make("stage_c"), inputs("stage_c")
    compile_blocks(network, backend="eager")
    lora = LoRA.create(network, {"*": 2})
    adapter = IPAdapter(attention_channels(network), c_image=7, c_tokens=5)
    for parameter in (*lora.parameters(), *adapter.parameters()):
        nn.init.normal_(parameter, std=0.3)
    images = {**given, "image_tokens": torch.randn(2, 3, 5)}
    with torch.no_grad():
        before = plain(**given)
        torch.testing.assert_close(network(**given), before, atol=1e-5, rtol=1e-5)
        for change in (lora, adapter):
            change.attach(plain)
            expected = plain(**images)
            change.detach()
            change.attach(network)
            found = network(**images)
            change.detach()
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            assert not torch.allclose(found, before, atol=0.01)
            torch.testing.assert_close(network(**given), before, atol=1e-5, rtol=1e-5)


def test_prepared_conditions_and_half(make: Any, inputs: Any) -> None:
    for dtype in (torch.float32, torch.float16):
        network, plain, given = make("stage_c").to(dtype), make("stage_c").to(dtype), inputs("stage_c")
        compile_blocks(network, backend="eager")
        others = {key: value for key, value in given.items() if key not in ("x", "r")}
        with torch.no_grad():
            prepared = network.prepare(given["x"], **others)
            torch.testing.assert_close(
                network(**given, prepared=prepared), plain(**given), atol=1e-2, rtol=1e-2
            )


@pytest.mark.slow
def test_the_whole_compiler_agrees(make: Any, inputs: Any) -> None:
    network, plain, given = make("stage_c"), make("stage_c"), inputs("stage_c")
    compile_blocks(network)
    network(**given).square().mean().backward()
    plain(**given).square().mean().backward()
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3)
