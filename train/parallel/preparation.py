"""Networks made ready for several processes: compiled, recomputed, sharded; in place."""

from torch import nn

from modules.compiling import compile_blocks
from train.config import ParallelConfig
from train.parallel.batchnorm import synchronise_batchnorm
from train.parallel.fsdp import share_out, share_out_frozen
from train.parallel.mesh import make_mesh
from train.parallel.recomputation import recomputed
from train.parallel.world import World


def prepare(networks: list[nn.Module], config: ParallelConfig, world: World) -> None:
    """Make networks ready for several processes, in place: names and references stay valid.

    Some may be frozen, or hold layers that learn among frozen ones. Each needs `shard_units()`, the blocks
    that are compiled and recomputed one by one (and sharded, after this).
    """
    for network in networks:
        if world.size > 1:
            synchronise_batchnorm(network)
        # Inside out: hooks of sharding stay out of compiled code, and recomputation, which the compiler
        # leaves alone, repeats the compiled block.
        if config.compile:
            compile_blocks(network)
        units: list[nn.Module] = network.shard_units()  # type: ignore[operator]
        for unit in units:
            if config.activation_checkpointing:
                selective = config.activation_checkpointing == "selective"
                unit.forward = recomputed(unit, selective)  # type: ignore[method-assign]


def shard(
    networks: list[nn.Module],
    helpers: list[nn.Module],
    config: ParallelConfig,
    world: World,
    precision: str,
) -> None:
    """Share out what the settings say over the processes, in place, block by block; all ranks call.

    networks: those that gradients pass through, already prepared. helpers: frozen ones beside them.
    precision: of products, bf16 or fp32; shards keep the number format that the networks have now.
    """
    if world.size == 1 or config.mode not in ("fsdp", "hsdp"):
        return
    mesh = make_mesh(config, world)
    for network in networks:
        share_out(network, mesh, precision)
    for helper in helpers if config.shard_frozen else ():
        share_out_frozen(helper, mesh)
