"""Several processes, one run: joining them, sharding in place, whole tensors from shards and back."""

import atexit
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from modules.schema import ConfigError
from train.batchnorm import statistics_kept, synchronise_batchnorm
from train.config import ParallelConfig


@dataclass(frozen=True)
class World:
    """The processes of this run, and the device of this one."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0


def join(device: str) -> World:
    """Join the processes that torchrun or srun started (or be the only one), until this process ends.

    device: auto | cpu | cuda. Raises ConfigError when CUDA is asked for and not there.
    """
    rank, size, local_rank = place()
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device: cuda asked for, but torch finds no CUDA device; use run.device=cpu")
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    # Modulo: SLURM may show each process only the GPUs that are its own.
    own = torch.device("cuda", local_rank % torch.cuda.device_count()) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(own)
    if size > 1 and not dist.is_initialized():  # the jobs of a --multirun share one group
        dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo", rank=rank, world_size=size)
        atexit.register(dist.destroy_process_group)
    return World(rank, size, own)


class Place(NamedTuple):
    """Where this process stands among those of the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine


def place() -> Place:
    """From the environment of torchrun, else of srun, else a single process."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return Place(int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0)))
    if "SLURM_PROCID" in env and int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # set by srun, not by sbatch
        first = re.sub(r"\[(\d+).*", r"\1", env["SLURM_STEP_NODELIST"]).split(",")[0]
        env.setdefault("MASTER_ADDR", first)
        env.setdefault("MASTER_PORT", str(20000 + int(env["SLURM_JOB_ID"]) % 20000))
        return Place(int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_LOCALID"]))
    return Place()


def prepare(networks: list[nn.Module], config: ParallelConfig, world: World) -> None:
    """Make networks ready for several processes, in place: names and references stay valid.

    Some may be frozen, or hold layers that learn among frozen ones. Each needs `shard_units()`, the blocks
    that are compiled, recomputed and sharded one by one.
    """
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
        if world.size > 1 and config.mode == "fsdp":
            for module in (*units, network):
                fully_shard(module)


def recomputed(unit: nn.Module) -> Callable[..., Any]:
    """The unit's forward, which keeps only its inputs and is repeated in the backward pass."""
    # A BatchNorm would follow a batch that is seen twice with twice the momentum.
    contexts = partial(_first_and_again, unit)
    return partial(checkpoint, unit.forward, use_reentrant=False, context_fn=contexts)


def _first_and_again(unit: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), statistics_kept(unit)


def sync_gradients(module: nn.Module, enabled: bool) -> None:
    """Whether the next backward pass through sharded parts sends gradients (the last micro-batch does)."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_requires_gradient_sync(enabled, recurse=False)


def reshard(network: nn.Module) -> None:
    """Free the whole weights that the last call gathered, so that the shards are what is read and written."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def whole_weights(network: nn.Module) -> Iterator[None]:
    """A sharded network's parameters are whole within the context, to be read; what is written is lost."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
    try:
        yield
    finally:
        reshard(network)


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a sharded tensor (sharing its memory); any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor (all ranks must call); any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, target: Tensor) -> Tensor:
    """A whole tensor, the same on all ranks, cut and placed as `target` is; nothing is sent."""
    value = value.to(target.device)
    if isinstance(target, DTensor):
        return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    return value


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Overwrite a parameter, sharded or not, with a whole tensor that is the same on all ranks."""
    local(target.detach()).copy_(local(like(value, target)))


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, over all shards; the same scalar on all ranks."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return full(torch.nn.utils.get_total_norm(gradients))


def gather(value: Any) -> list[Any]:
    """Every rank's value (plain data or CPU tensors), in the order of ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def is_sharded(module: nn.Module) -> bool:
    """Whether parts of `module` are shared out over the ranks (their gradients then need no averaging)."""
    return any(isinstance(part, FSDPModule) for part in module.modules())
