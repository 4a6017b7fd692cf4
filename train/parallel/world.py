"""The processes of a run: joining them, and ending one of them."""

import atexit
import os
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

from modules.devices import best, present
from modules.leaving import leave_at_once
from modules.processes import place
from modules.schema import ConfigError, one_line
from train.config import ParallelConfig
from train.interrupts import stop_requests
from train.parallel.heartbeat import FAILURE, Heartbeat
from train.parallel.interface import choose_interface
from train.parallel.meeting import NotMetError, fresh

INTERRUPTED = 130  # exit status, after a second Ctrl-C

_heartbeat: Heartbeat | None = None  # one for the process, as the process group itself


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


def join(device: str, config: ParallelConfig | None = None) -> World:
    """Join the processes that torchrun or srun started (or be the only one), until this process ends.

    device: auto | cpu | cuda | mps. Raises ConfigError for one that is not there, or cannot do it, and
    NotMetError for processes that do not come.
    """
    rank, size, local_rank = place()
    own = torch.device(device_kind(device, present(), size))
    if own.type == "cuda":
        # Modulo: SLURM may show each process only the GPUs that are its own.
        own = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(own)
    if size > 1 and not dist.is_initialized():  # the jobs of a --multirun share one group
        _meet(rank, size, "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo", config or ParallelConfig())
    return World(rank, size, own)


def device_kind(wanted: str, found: Collection[str], world_size: int) -> str:
    """The kind of device that a run takes of those found. Raises ConfigError where that cannot be."""
    if wanted == "auto":
        return best(found, is_alone=world_size == 1)
    if wanted not in found:
        raise ConfigError(
            f"run.device: {wanted} asked for, but torch finds no such device here; use run.device=auto"
        )
    if wanted == "mps" and world_size > 1:
        raise ConfigError(
            f"run.device: mps works in one process, found {world_size}; start one, or use run.device=cpu"
        )
    return wanted


def _meet(rank: int, size: int, backend: str, config: ParallelConfig) -> None:
    """Make the group of all processes, and watch over them from now on."""
    global _heartbeat
    timeout = timedelta(seconds=config.timeout_s)
    choose_interface(os.environ.get("MASTER_ADDR", ""))  # without one `_common_store` says what is missing
    store = fresh(_common_store(rank, size, timeout), rank, size, config.timeout_s)
    group = dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=timeout)
    atexit.register(dist.destroy_process_group)
    _heartbeat = Heartbeat(store, rank, size, config.dead_after_s)
    atexit.register(_farewell)


def _common_store(rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Where the processes find each other. Raises NotMetError where there is none or not all of them come."""
    try:
        return next(dist.rendezvous(f"env://?rank={rank}&world_size={size}", timeout=timeout))[0]
    except dist.DistError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise NotMetError(
            f"parallel.timeout_s: the {size} processes did not meet at {where} within"
            f" {timeout.total_seconds():g} s ({one_line(error)}); look at the output of all of them"
        ) from error


def _farewell() -> None:
    """For a process that others end, without `leave`, such as one that submitit started."""
    assert _heartbeat is not None
    if error := getattr(sys, "last_value", None):
        _heartbeat.fail(f"{type(error).__name__}: {error}")
        _heartbeat.let_others_hear()
    else:
        _heartbeat.leave()


def fail(reason: str) -> bool:
    """Leave the reason of a failure to all other ranks; returns whether this one is to print it.

    What every rank finds wrong alike is printed once per machine.
    """
    if _heartbeat is None:
        return place().local_rank == 0
    _heartbeat.fail(reason)
    return _heartbeat.may_speak()


def conduct(main: Callable[[], int]) -> NoReturn:
    """Call `main` and end this process with the status that it returns, or 1 and the traceback of an error.

    An error that only follows from another rank's end is not shown: the reason is (see `heartbeat`).
    torchrun sends SIGTERM to all when one has ended; there is time left to say why.
    """
    with stop_requests():
        leave(_status(main))


def _status(main: Callable[[], int]) -> int:
    try:
        return main()
    except SystemExit as request:
        return request.code if isinstance(request.code, int) else bool(request.code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:  # those of torch.distributed.checkpoint are no Exceptions
        if _heartbeat is None:
            traceback.print_exc()
        elif not _heartbeat.is_others_fault(error):
            traceback.print_exc()
            _heartbeat.fail(f"{type(error).__name__}: {error}")
        return FAILURE


def leave(status: int) -> NoReturn:
    """End this process with an exit status, as `sys.exit` does in a single one; others learn of a failure.

    Threads of gloo may still hold a tensor of the last collective call. PyTorch aborts a process in which one
    of them lets go of it while the interpreter is taken down, so with several processes it is not taken down.
    """
    if _heartbeat is None:
        sys.exit(status)
    atexit.unregister(_farewell)
    if status == 0 and not _heartbeat.leave():
        status = FAILURE
    if status:
        _heartbeat.fail(f"exit status {status}")  # unless there is a better reason already
        _heartbeat.let_others_hear()
        atexit.unregister(dist.destroy_process_group)  # it waits for those who are gone
    atexit._run_exitfuncs()  # data workers, trackers and logs are closed as ever
    leave_at_once(status)
