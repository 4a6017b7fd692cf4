"""Means of what recipes and loop report, over the steps between two reports and over ranks."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from train.parallel.ranks import gather


class Means:
    """Collects metrics without waiting for a GPU; only `result` does.

    Values that are not finite (a skipped step, an empty bucket) count as not reported.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float | Tensor]] = defaultdict(list)

    def add(self, metrics: Mapping[str, float | Tensor]) -> None:
        """Take in one step's (or micro-batch's) values; tensors are scalars."""
        for name, value in metrics.items():
            self._values[name].append(value.detach() if isinstance(value, Tensor) else value)

    def result(self) -> dict[str, float]:
        """The mean of every metric since the last call, over all ranks; all ranks must call."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for rank in gather({name: _sum(values) for name, values in self._values.items()}):
            for name, (total, count) in rank.items():
                sums[name][0] += total
                sums[name][1] += count
        self._values.clear()
        return {name: total / count for name, (total, count) in sums.items() if count}


def _sum(values: list[float | Tensor]) -> tuple[float, int]:
    tensors = [value for value in values if isinstance(value, Tensor)]
    numbers = [value for value in values if not isinstance(value, Tensor)]
    if tensors:
        numbers += torch.stack([tensor.float() for tensor in tensors]).tolist()
    finite = [number for number in numbers if math.isfinite(number)]
    return math.fsum(finite), len(finite)
