"""Decisions of the first rank on what all ranks report, taken beside training and its collective calls."""

import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from train.parallel.ranks import total

POLL_S = 0.05


def decide(topic: str, report: Any, decision: Callable[[list[Any]], Any]) -> Any:
    """What `decision` makes, on the first rank, of the reports of all ranks in their order; the same on all.

    It may be called from any thread, for nothing is sent but through the store by which the ranks found each
    other. topic: never used before. report, decision: plain data. `decision` must not raise: others wait.
    """
    if not dist.is_initialized():
        return decision([report])
    store, rank, size = _store(), dist.get_rank(), dist.get_world_size()
    store.set(f"{topic}/{rank}", json.dumps(report))
    if rank == 0:
        reports = [json.loads(_awaited(store, f"{topic}/{each}")) for each in range(size)]
        store.set(f"{topic}/decision", json.dumps(decision(reports)))
        for each in range(size):
            store.delete_key(f"{topic}/{each}")
    return json.loads(_awaited(store, f"{topic}/decision"))


@cache
def _store() -> dist.Store:
    """A connection of its own: the group's may be waiting for something."""
    return dist.PrefixStore("agreement", _get_default_store().clone())


def _awaited(store: dist.Store, key: str) -> bytes:
    # Asked again and again: a call that waits ends with an error after the store's timeout.
    while not store.check([key]):
        time.sleep(POLL_S)
    return store.get(key)


def all_of(flag: bool) -> bool:
    """Whether a flag is set on every rank; the same answer on all, which must all call."""
    if not dist.is_initialized():
        return flag
    return int(total(torch.tensor(int(flag)))) == dist.get_world_size()
