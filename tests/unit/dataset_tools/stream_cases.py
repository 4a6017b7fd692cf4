"""Small settings of the stream, and what a test wants to know of it."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dataset_tools.batches import Batch
from dataset_tools.data_config import DataConfig


def config(folder: Path, **changes: Any) -> DataConfig:
    """16 px, three shapes, everything shuffled, no workers."""
    settings = {
        "shards": str(folder),
        "image_size_px": 16,
        "multiple_px": 4,
        "aspect_ratios": ["1/1", "1/2"],
        "random_ratio": 0.0,
        "batch_size": 4,
        "num_workers": 0,
        "shuffle": 8,
    }
    return DataConfig(**(settings | changes))


def take(stream: Iterable[Batch], number: int) -> list[Batch]:
    """The first batches."""
    return list(itertools.islice(stream, number))


def keys_of(batches: Iterable[Batch]) -> list[list[str]]:
    """The keys of each batch."""
    return [batch["keys"] for batch in batches]


def soon(is_so: Callable[[], object]) -> bool:
    """Whether something becomes true within a minute."""
    deadline, wait = time.monotonic() + 60, threading.Event()
    while not is_so() and time.monotonic() < deadline:
        wait.wait(0.01)
    return bool(is_so())
