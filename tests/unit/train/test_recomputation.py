"""Recomputed blocks: the same gradients, less memory, and no product computed twice where so chosen."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode

import modules
from tests.integration.recipe_cases import STAGE_C
from train.config import ParallelConfig
from train.parallel.preparation import prepare
from train.parallel.recomputation import recomputed
from train.parallel.world import World

CPU = torch.device("cpu")
ADDMM = torch.ops.aten.addmm.default
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
DEPTHWISE = "depthwise"


class Counted(TorchDispatchMode):
    """Counts operations; convolutions of single channels apart."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Any] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        depthwise = operation is torch.ops.aten.convolution.default and arguments[8] > 1
        self.calls[DEPTHWISE if depthwise else operation] += 1
        return operation(*arguments, **(keywords or {}))


def network(mode: Any, **changes: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    made = modules.build("stage_c", {**STAGE_C, "c_hidden": [64, 64], **changes})
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.05)
    prepare([made], ParallelConfig(activation_checkpointing=mode), World(0, 1, CPU))
    texts = {"clip_text": torch.randn(2, 5, 16), "clip_text_pooled": torch.randn(2, 1, 16)}
    return made, {
        "x": torch.randn(2, 4, 16, 16),
        "r": torch.rand(2),
        "clip_img": torch.randn(2, 1, 16),
        **texts,
    }


def gradients(mode: Any, precision: torch.dtype, **changes: Any) -> tuple[list[Tensor], Counter[Any]]:
    made, inputs = network(mode, **changes)
    with Counted() as counted:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = made(**inputs).float().square().mean()
        loss.backward()
    return [parameter.grad for parameter in made.parameters()], counted.calls  # type: ignore[misc]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_are_the_same_and_products_are_repeated_as_chosen(precision: torch.dtype) -> None:
    plain, once = gradients(False, precision)
    selective, kept = gradients("selective", precision)
    recomputed, twice = gradients(True, precision)
    for own, other, expected in zip(selective, recomputed, plain, strict=True):
        assert torch.equal(own, expected) and torch.equal(other, expected)
    assert kept[ADDMM] == once[ADDMM] > 0 and kept[ATTENTION] == once[ATTENTION]
    # Of a block's products the last need not be repeated: nothing in the backward pass asks for it.
    assert twice[ADDMM] > 1.4 * once[ADDMM] and twice[ATTENTION] == 2 * once[ATTENTION]
    assert once[ATTENTION] > 0 or precision == torch.bfloat16  # which is taken apart on a CPU
    assert kept[DEPTHWISE] == 2 * once[DEPTHWISE] > 0


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", [True, "selective"])
def test_what_fell_out_falls_out_again(mode: Any, precision: torch.dtype) -> None:
    plain, _ = gradients(False, precision, dropout=0.3)
    again, _ = gradients(mode, precision, dropout=0.3)
    assert all(torch.equal(own, expected) for own, expected in zip(again, plain, strict=True))


def test_blocks_that_are_run_again_find_no_cast_of_the_first_run() -> None:
    """Else autocast would do fewer operations forward than in the repetition, which counts them."""
    repeats = [[2, 1], [1, 2]]
    plain, _ = gradients(False, torch.bfloat16, block_repeat=repeats)
    selective, _ = gradients("selective", torch.bfloat16, block_repeat=repeats)
    for own, expected in zip(selective, plain, strict=True):
        # Of a weight used twice the gradients meet in bf16 there, and in fp32 here.
        assert (own - expected).norm() <= 1e-2 * expected.norm()


def bytes_kept(mode: Any) -> int:
    """What is alive for the backward pass beside the weights."""
    made, inputs = network(mode)
    tracker = MemTracker()
    tracker.track_external(made)
    with tracker:
        with torch.autocast("cpu", torch.bfloat16):
            loss = made(**inputs).float().square().mean()
        alive = tracker.get_tracker_snapshot("current")[CPU]["Total"]
    del loss
    return int(alive) - sum(parameter.nbytes for parameter in made.parameters())


def test_keeping_products_takes_less_than_all_and_more_than_nothing() -> None:
    everything, products, inputs = (bytes_kept(mode) for mode in (False, "selective", True))
    assert products < 0.65 * everything
    assert inputs < 0.5 * products


def test_what_works_in_place_keeps_its_inputs_only() -> None:
    """A product that is kept would be changed by the activation after it."""

    def gradient(mode: bool | None) -> Tensor:
        torch.manual_seed(0)
        block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(inplace=True), nn.Conv2d(4, 2, 1))
        if mode is not None:
            block.forward = recomputed(block, selective=mode)  # type: ignore[method-assign]
        block(torch.randn(2, 3, 8, 8)).square().mean().backward()
        return block.get_parameter("0.weight").grad  # type: ignore[return-value]

    assert torch.equal(gradient(True), gradient(None))
