"""Which processes share out one copy of the weights, and which hold the same part of it."""

from functools import cache

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from modules.processes import place
from modules.schema import ConfigError
from train.config import ParallelConfig
from train.parallel.ranks import gather
from train.parallel.world import World


def shard_size(config: ParallelConfig, world: World) -> int:
    """How many processes share out one copy of the weights; all ranks call.

    Raises ConfigError, on all ranks, where copies of that size do not make up the world.
    """
    if config.mode != "hsdp":
        return world.size
    size = config.shard_size or processes_per_machine()
    if world.size % size:
        raise ConfigError(
            f"parallel.shard_size: expected a divisor of {world.size}, the number of processes, found {size}"
        )
    return size


def processes_per_machine() -> int:
    """How many processes each machine runs. Raises ConfigError where they differ or are mixed up."""
    places = gather(place().local_rank)
    size = max(places) + 1
    if places != list(range(size)) * (len(places) // size):
        raise ConfigError(
            "parallel.shard_size: expected a number, for the machines do not run equally many processes"
            f" each, or not one machine's after another's (their places on the machines: {places})"
        )
    return size


def make_mesh(config: ParallelConfig, world: World) -> DeviceMesh:
    """[shard]; or [replicate, shard], whose rows are neighbours. All ranks call."""
    size = shard_size(config, world)
    return _mesh(world.device.type, world.size // size, size)


@cache  # its groups live as long as the process, which may run many jobs
def _mesh(device: str, copies: int, size: int) -> DeviceMesh:
    if copies == 1:
        return init_device_mesh(device, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(device, (copies, size), mesh_dim_names=("replicate", "shard"))
