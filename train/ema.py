"""The exponential moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from train.config import EmaConfig
from train.parallel.shards import local, reshard


def decay_after(passed: int, config: EmaConfig, steps: int = 1) -> float:
    """The decay of an update `passed` steps after the start, `steps` after the one before it; 0 (the weights
    themselves) until the start.

    It is per step: averaging every 10th step forgets as fast as averaging every step. It grows from 0.18 to
    `config.decay`, so that an average of n steps is not one of the first weights: with a fixed decay of
    0.9999 these would make up 90 % of it after 1000 steps.
    """
    if passed <= 0:
        return 0.0
    return min(config.decay, (1 + passed) / (10 + passed)) ** steps


class Ema:
    """Averages of all learning parameters of a module; sharded as they are.

    average: parameter -> its moving average, a tensor like it; of bf16 weights too in fp32, for what a step
    adds to an average is less than bf16 can hold.
    """

    def __init__(self, module: nn.Module, config: EmaConfig) -> None:
        self.module, self.config = module, config
        self.average: dict[nn.Parameter, Tensor] = {
            parameter: parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
            for parameter in module.parameters()
            if parameter.requires_grad
        }

    def covers(self, network: nn.Module) -> bool:
        """Whether averages of this network's weights are kept."""
        return any(parameter in self.average for parameter in network.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step `step` (1-based), if it is one of the interval's.

        Those before the first interval's end all are: a run that ends before it has an average, too.
        """
        start, interval = self.config.start, self.config.interval
        if step % interval and step != start and step > interval:
            return
        decay = decay_after(step - start, self.config, 1 if step <= interval else interval)
        pairs = list(zip(self._averages(), self._weights(), strict=True))
        alike = [pair for pair in pairs if pair[0].dtype == pair[1].dtype]
        if alike:
            torch._foreach_lerp_([pair[0] for pair in alike], [pair[1] for pair in alike], 1 - decay)
        for average, weight in pairs:
            if average.dtype != weight.dtype:  # one by one: all of them in fp32 would take much memory
                average.lerp_(weight.to(average.dtype), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The weights are the averages within the context, rounded where they are bf16."""
        pairs = zip(self._weights(), self._averages(), strict=True)
        lowered = [(weight, average) for weight, average in pairs if weight.dtype != average.dtype]
        kept = [weight.clone() for weight, _ in lowered]
        self._exchange()
        for weight, average in lowered:
            weight.copy_(average)
        try:
            yield
        finally:
            self._exchange()
            for (weight, _), own in zip(lowered, kept, strict=True):
                weight.copy_(own)

    def _weights(self) -> list[Tensor]:
        return [local(parameter.detach()) for parameter in self.average]

    def _averages(self) -> list[Tensor]:
        return [local(average) for average in self.average.values()]

    @torch.no_grad()
    def _exchange(self) -> None:
        """Exchange weights and averages of one number format, which takes the memory of one more of them."""
        reshard(self.module)
        for weight, average in zip(self._weights(), self._averages(), strict=True):
            if weight.dtype == average.dtype:
                kept = weight.clone()
                weight.copy_(average)
                average.copy_(kept)
