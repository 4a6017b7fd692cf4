"""The host's memory, where networks compute on the CPU."""

import ctypes
import sys

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
MOST_BYTES = 1 << 30  # of one tensor; a larger one is given back to the system


def keep_freed(device: torch.device) -> None:
    """Let this process keep what tensors free, for the next ones, if it computes on a CPU.

    That is up to the C library, where it can be told so (glibc). By itself that gives back everything beyond
    32 MiB, and each page of 4 kB that is taken again must be cleared by the system: in a virtual machine that
    was a third of a training step (docs/log.md). Of a GPU's memory PyTorch keeps what is freed anyway.
    """
    if device.type == "cpu" and sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if mallopt is not None:
            mallopt(MMAP_THRESHOLD, MOST_BYTES)
            mallopt(TRIM_THRESHOLD, 2 * MOST_BYTES - 1)


def give_back_freed() -> None:
    """Give the system what was kept so far, for instance to see what comes next needs."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
