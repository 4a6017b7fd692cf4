"""Means of what recipes and loop report, over the steps between two reports and over ranks."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

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

    def state_dict(self) -> dict[str, list[float]]:
        """What this rank has collected since the last result, as plain numbers."""
        return {name: _finite(values) for name, values in self._values.items()}

    def load_state_dict(self, states: Sequence[Mapping[str, Sequence[float]]], rank: int, size: int) -> None:
        """Take back this rank's of all ranks' states; if there were more or fewer, the first takes all."""
        self._values.clear()
        if len(states) == size:
            states = states[rank : rank + 1]
        elif rank > 0:
            states = []
        for state in states:
            for name, numbers in state.items():
                self._values[name].extend(numbers)


def _sum(values: list[float | Tensor]) -> tuple[float, int]:
    finite = _finite(values)
    return math.fsum(finite), len(finite)


def _finite(values: list[float | Tensor]) -> list[float]:
    tensors = [value for value in values if isinstance(value, Tensor)]
    numbers = [float(value) for value in values if not isinstance(value, Tensor)]
    if tensors:
        numbers += torch.stack([tensor.float() for tensor in tensors]).tolist()
    return [number for number in numbers if math.isfinite(number)]
