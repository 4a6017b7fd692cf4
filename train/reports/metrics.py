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
        self._values: dict[str, list[tuple[float | Tensor, float]]] = defaultdict(list)  # with their weights

    def add(self, metrics: Mapping[str, float | Tensor], weight: float = 1.0) -> None:
        """Take in one step's (or micro-batch's) values; tensors are scalars. weight: what they count."""
        for name, value in metrics.items():
            self._values[name].append((value.detach() if isinstance(value, Tensor) else value, weight))

    def result(self) -> dict[str, float]:
        """The mean of every metric since the last call, over all ranks; all ranks must call."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for rank in gather({name: _sum(values) for name, values in self._values.items()}):
            for name, (total, weight) in rank.items():
                sums[name][0] += total
                sums[name][1] += weight
        self._values.clear()
        return {name: total / weight for name, (total, weight) in sums.items() if weight}

    def state_dict(self) -> dict[str, list[tuple[float, float]]]:
        """What this rank has collected since the last result, as plain numbers: (value, weight)."""
        return {name: _finite(values) for name, values in self._values.items()}

    def load_state_dict(
        self, states: Sequence[Mapping[str, Sequence[Sequence[float]]]], rank: int, size: int
    ) -> None:
        """Take back this rank's of all ranks' states; if there were more or fewer, the first takes all."""
        self._values.clear()
        if len(states) == size:
            states = states[rank : rank + 1]
        elif rank > 0:
            states = []
        for state in states:
            for name, numbers in state.items():
                self._values[name].extend((value, weight) for value, weight in numbers)


def _sum(values: list[tuple[float | Tensor, float]]) -> tuple[float, float]:
    finite = _finite(values)
    return math.fsum(value * weight for value, weight in finite), math.fsum(weight for _, weight in finite)


def _finite(values: list[tuple[float | Tensor, float]]) -> list[tuple[float, float]]:
    tensors = [(value, weight) for value, weight in values if isinstance(value, Tensor)]
    numbers = [(float(value), weight) for value, weight in values if not isinstance(value, Tensor)]
    if tensors:
        found = torch.stack([tensor.float() for tensor, _ in tensors]).tolist()
        numbers += zip(found, (weight for _, weight in tensors), strict=True)
    return [(number, weight) for number, weight in numbers if math.isfinite(number)]
