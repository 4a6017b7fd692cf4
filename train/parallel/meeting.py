"""The processes of one start find each other in a store that may hold what earlier starts left."""

import time
from uuid import uuid4

import torch.distributed as dist

POLL_S = 0.02


class NotMetError(TimeoutError):
    """Processes of a run that did not find each other: no mistake in its settings."""


def fresh(store: dist.Store, rank: int, size: int, timeout_s: float) -> dist.Store:
    """The part of the store that belongs to this start alone. Raises NotMetError if a rank does not come.

    torchrun keeps one store for all its restarts: an address or a failure in it may be that of a dead
    process. And the number of the restart is not the same on all nodes. So the first rank makes up a name,
    and tells it to those who are there now: each of them knocks with a word that nobody used before.
    """
    word = uuid4().hex
    if rank == 0:
        _let_in(store, word, set(range(1, size)), timeout_s)
        return dist.PrefixStore(word, store)
    store.set(f"knock/{rank}", word)
    try:
        name = store.get(f"answer/{word}").decode()
    except dist.DistStoreError as error:
        raise NotMetError(f"parallel.timeout_s: rank 0 was not there within {timeout_s:g} s") from error
    store.set(f"in/{name}/{rank}", "")
    return dist.PrefixStore(name, store)


def _let_in(store: dist.Store, name: str, missing: set[int], timeout_s: float) -> None:
    """Answer all who knock, until every one of the missing ranks has heard it."""
    end = time.monotonic() + timeout_s
    while missing:
        for rank in sorted(missing):
            if store.check([f"in/{name}/{rank}"]):
                missing.remove(rank)
            elif store.check([f"knock/{rank}"]):  # perhaps a dead one's: then another will follow
                store.set(f"answer/{store.get(f'knock/{rank}').decode()}", name)
        if time.monotonic() > end:
            raise NotMetError(
                f"parallel.timeout_s: ranks {sorted(missing)} were not there within {timeout_s:g} s"
            )
        time.sleep(POLL_S)
