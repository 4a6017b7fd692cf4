"""Networks compiled in one piece: graphs made by the compiler's first half, as in test_compiling."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.adapters.ip_adapter import IPAdapter, attention_channels
from modules.adapters.lora import LoRA
from modules.compiling import compile_blocks, compile_whole
from tests.unit.modules.test_compiling import fresh, graphs

__all__ = ["fresh"]
SMALL = {"c_hidden": [16], "nhead": [2], "blocks": [[1], [1]], "level_config": ["CTA"]}
SIZES = ((8, 8), (6, 10), (16, 8))


def prepared(network: Any, given: dict[str, Any]) -> Tensor:
    """As sampling calls it."""
    conditions = {key: value for key, value in given.items() if key not in ("x", "r")}
    ready = network.prepare(given["x"], **conditions)
    return network(given["x"], given["r"], **conditions, prepared=ready)


@torch.no_grad()
def test_one_graph_serves_all_sizes_and_one_each_set_of_adapters(make: Any, inputs: Any) -> None:
    network, plain = make("stage_c", **SMALL), make("stage_c", **SMALL)
    compile_whole(network, backend="eager")
    lora = LoRA.create(network, {"*": 2})
    adapter = IPAdapter(attention_channels(network), c_image=7, c_tokens=5)
    for parameter in (*lora.parameters(), *adapter.parameters()):
        nn.init.normal_(parameter, std=0.3)
    beside = {"cnet": [torch.randn(2, 16, 3, 5)], "image_tokens": torch.randn(2, 3, 5)}
    for changes, more, most in (((), {}, 1), ((lora, adapter), beside, 2), ((), {}, 3)):
        for size in SIZES:
            given = {**inputs("stage_c", *size), **more}
            expected, found = (adapted(each, changes, given) for each in (plain, network))
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            assert graphs() <= most


def adapted(network: nn.Module, changes: Any, given: dict[str, Any]) -> Tensor:
    """What a network gives with these adapters, which are taken off again."""
    for change in changes:
        change.attach(network)
    found = prepared(network, given)
    for change in changes:
        change.detach()
    return found


@torch.no_grad()
def test_stage_b_in_one_piece(make: Any, inputs: Any) -> None:
    small = {**SMALL, "level_config": ["CTAF"], "block_repeat": [[1], [2]]}
    network, plain = make("stage_b", **small), make("stage_b", **small)
    compile_whole(network, backend="eager")
    for size in SIZES:
        given = inputs("stage_b", *size)
        torch.testing.assert_close(prepared(network, given), prepared(plain, given), atol=1e-4, rtol=1e-4)
    assert graphs() == 1


@torch.no_grad()
def test_what_was_given_stays_when_the_graph_is_replayed(make: Any, inputs: Any) -> None:
    def in_place(graph: torch.fx.GraphModule, inputs: Any, **settings: Any) -> Any:
        """Code that writes its result to the same place each time, as a replayed graph does."""
        places: list[Tensor] = []

        def run(*arguments: Any) -> list[Tensor]:
            results = graph.forward(*arguments)
            places.extend(results[len(places) :])
            return [place.copy_(result) for place, result in zip(places, results, strict=True)]

        return run

    network, given = make("stage_c", **SMALL), inputs("stage_c", 8, 8)
    compile_whole(network, backend=in_place)
    first = network(**given)
    kept = first.clone()
    assert not torch.allclose(network(**{**given, "x": -given["x"]}), kept)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("compile", [compile_blocks, compile_whole])
def test_without_a_compiler_one_line_says_so(compile: Any, make: Any) -> None:
    missing = torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with (
        missing,
        pytest.raises(ValueError, match=r"^compile: no C\+\+ compiler was found .*; install one, or"),
    ):
        compile(make("stage_c", **SMALL))


@pytest.mark.slow
@torch.no_grad()
def test_the_whole_compiler_agrees(make: Any, inputs: Any) -> None:
    network, plain = make("stage_c", **SMALL), make("stage_c", **SMALL)
    compile_whole(network)
    for size in SIZES:
        given = inputs("stage_c", *size)
        torch.testing.assert_close(prepared(network, given), prepared(plain, given), atol=1e-4, rtol=1e-4)
