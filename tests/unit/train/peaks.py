"""Memory as torch really takes it."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def measured(compute: Callable[[], Any]) -> int:
    """Most bytes at once beside what was there before, as torch's allocator reports them.

    On one thread: a CPU's convolutions need room of their own for each.
    """
    gc.collect()  # what others have left, freed meanwhile, would be taken off
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = compute()
    torch.set_num_threads(threads)
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    live = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    del kept
    return peak
