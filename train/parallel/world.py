"""The processes of a run: joining them, and ending one of them."""

import atexit
import os
import sys
from dataclasses import dataclass
from typing import NoReturn

import torch
import torch.distributed as dist

from modules.processes import place
from modules.schema import ConfigError


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


def leave(status: int) -> NoReturn:
    """End this process with an exit status, as `sys.exit` does in a single one.

    Threads of gloo may still hold a tensor of the last collective call. PyTorch aborts a process in which one
    of them lets go of it while the interpreter is taken down, so with several processes it is not taken down.
    """
    if not dist.is_initialized():
        sys.exit(status)
    atexit._run_exitfuncs()  # data workers, trackers and logs are closed as ever
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
