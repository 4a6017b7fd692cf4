"""Networks made ready for several processes: compiled, recomputed, sharded; in place."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from train.config import ParallelConfig
from train.parallel.batchnorm import statistics_kept, synchronise_batchnorm
from train.parallel.fsdp import share_out
from train.parallel.mesh import make_mesh
from train.parallel.world import World


def prepare(networks: list[nn.Module], config: ParallelConfig, world: World, precision: str = "fp32") -> None:
    """Make networks ready for several processes, in place: names and references stay valid.

    Some may be frozen, or hold layers that learn among frozen ones. Each needs `shard_units()`, the blocks
    that are compiled, recomputed and sharded one by one.
    """
    mesh = make_mesh(config, world) if world.size > 1 and config.mode in ("fsdp", "hsdp") else None
    for network in networks:
        if world.size > 1:
            synchronise_batchnorm(network)
        units: list[nn.Module] = network.shard_units()  # type: ignore[operator]
        for unit in units:
            # Inside out: hooks of sharding stay out of compiled code, and recomputation, which the
            # compiler leaves alone, repeats the compiled block.
            if config.compile:
                unit.forward = torch.compile(unit.forward)  # type: ignore[method-assign]
            if config.activation_checkpointing:
                unit.forward = recomputed(unit)  # type: ignore[method-assign]
        if mesh is not None:
            share_out(network, units, mesh, precision)


def recomputed(unit: nn.Module) -> Callable[..., Any]:
    """The unit's forward, which keeps only its inputs and is repeated in the backward pass."""
    # A BatchNorm would follow a batch that is seen twice with twice the momentum.
    contexts = partial(_first_and_again, unit)
    return partial(checkpoint, unit.forward, use_reentrant=False, context_fn=contexts)


def _first_and_again(unit: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), statistics_kept(unit)
