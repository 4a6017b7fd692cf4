"""Training steps of Stage C and Stage B beside diffusers' network, with the same loop and optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.frame import Comparison, Found, Run, Target, Turn, row
from benchmarks.loop import Call, adamw, training_step
from benchmarks.networks import (
    call_peer,
    compiled_by_blocks,
    conditions,
    operations,
    peer_by_blocks,
    peer_of,
    quarter_width,
    random_network,
    released,
)

DIFFUSERS = "diffusers' StableCascadeUNet, same loop and optimizer"
BY_BLOCKS = "compiled by blocks"
BACKWARD = 3  # forward and backward are three times the operations of the forward pass


@row(
    "cpu",
    "Stage C, quarter width, training step, batch 8, fp32",
    DIFFUSERS,
    {"ratio": Target("at most", 0.7)},
    seconds=40,
)
def stage_c_training_fp32(run: Run) -> Found:
    return quarter_width_training(run, torch.float32)


@row(
    "cpu",
    "Stage C, quarter width, training step, batch 8, bf16",
    DIFFUSERS,
    {"ratio": Target("at most", 0.7)},
    seconds=40,
)
def stage_c_training_bf16(run: Run) -> Found:
    return quarter_width_training(run, torch.bfloat16)


@row(
    "gpu",
    "Stage C 3.6 B, training, 768 px, bf16, batch 8",
    DIFFUSERS,
    {"speed": Target("at least", 2.0), "matrix_share": Target("at least", 0.5)},
)
def stage_c_3_6b_training(run: Run) -> Found:
    shape = (2, 16, 4, 4) if run.small else (8, 16, 24, 24)
    comparison = compare_training(run, "stage_c", released("stage_c", "3_6b", run.small), shape)
    return with_share(comparison, units=shape[0])


@row(
    "gpu",
    "Stage B 1.5 B, training, 1024 px, bf16, batch 4",
    DIFFUSERS,
    {"speed": Target("at least", 1.5)},
)
def stage_b_1_5b_training(run: Run) -> Found:
    shape = (2, 4, 16, 16) if run.small else (4, 4, 256, 256)
    comparison = compare_training(run, "stage_b", released("stage_b", "1_5b", run.small), shape)
    return with_share(comparison, units=shape[0])


def quarter_width_training(run: Run, precision: torch.dtype) -> Found:
    """24 x 24 latents, those of 1024 px."""
    config = released("stage_c", "1b", run.small)
    config, side = (config, 4) if run.small else (quarter_width(config), 24)
    shape = (2 if run.small else 8, 16, side, side)
    return compare_training(run, "stage_c", config, shape, precision).found(units=shape[0])


def with_share(comparison: Comparison, units: int) -> Found:
    """The speed, and the share of the matrix rate that becomes useful operations."""
    found = comparison.found("speed", units)
    found.figures["matrix_share"] = comparison.matrix_share()
    return found


def compare_training(
    run: Run,
    stage: str,
    config: Mapping[str, Any],
    shape: tuple[int, ...],
    precision: torch.dtype = torch.bfloat16,
) -> Comparison:
    """Steps of the same weights in both, held in float32, products in `precision`."""
    network = random_network(stage, config, run.device, torch.float32).train()
    theirs = peer_of(stage, network)
    inputs = conditions(stage, config, shape, run.device, torch.float32)

    def ours(module: nn.Module) -> Call:
        return lambda x, r, given: module(x, r, **given)

    def peers(module: nn.Module) -> Call:
        return lambda x, r, given: call_peer(module, x, r, given)

    def steps(optimizer: torch.optim.Optimizer, calls: Mapping[str, Call]) -> dict[str, Turn]:
        return {
            name: training_step(call, optimizer, inputs, shape, precision) for name, call in calls.items()
        }

    counted = BACKWARD * operations(stage, config, shape)
    own = {"eager": ours(network)}
    if run.device.type != "cpu" or run.small:  # compiled for a CPU, dropout's masks are drawn entry by entry
        own[BY_BLOCKS] = ours(compiled_by_blocks(network))
    return run.compare(
        steps(adamw(network), own),
        steps(adamw(theirs), {"eager": peers(theirs), BY_BLOCKS: peers(peer_by_blocks(theirs))}),
        operations=counted,
        precision=precision,
        shorten=True,
    )
