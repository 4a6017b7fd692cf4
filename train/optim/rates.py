"""Learning rates as a pure function of the step."""

import math

import torch

from train.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """The rate of update `step` (0-based): a linear rise over warmup_steps, then constant or half a cosine.

    Update k of the warm-up has (k + 1) / (warmup_steps + 1) of the full rate: it is never 0, for an update
    with rate 0 is wasted, and the first update after the warm-up has the full rate.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.final_lr_share + (1 - config.final_lr_share) * fall)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` in the next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate
