"""Optimizers, and learning rates as a pure function of the step."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from modules.adapters.lora_layer import LoRALayer
from modules.adapters.tokens import TokenVector
from modules.schema import ConfigError
from train.config import OptimConfig

UNDECAYED = (nn.Embedding, TokenVector, LoRALayer)  # of the last the magnitudes; its factors are modules


def make_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over what learns in `module`; matrices and convolutions decay, everything else does not."""
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in zip(decay_groups(module), (config.weight_decay, 0.0), strict=True)
        if parameters
    ]
    rates: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    if config.name == "adamw":
        return AdamW(groups, **rates, fused=True)
    return _eight_bit(config.name)(groups, **rates)


class AdamW(torch.optim.AdamW):
    """torch's, whose moments stay fp32 beside bf16 weights when they are taken back."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)  # which rounds them to the weights' number format
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, entries in state_dict["state"].items():
            state = self.state[parameters[index]]
            state |= {key: entries[key].to(state[key].device) for key in ("exp_avg", "exp_avg_sq")}


def decay_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The learning parameters that weight decay applies to, and the rest.

    Biases, norms, scales (one dimension), embeddings (a codebook's entries, a token's vector) and DoRA's
    magnitudes have no reason to be small.
    """
    exempt = {
        id(p) for m in module.modules() if isinstance(m, UNDECAYED) for p in m.parameters(recurse=False)
    }
    learning = [p for p in module.parameters() if p.requires_grad]
    matrices = {id(p) for p in learning if p.ndim >= 2} - exempt
    return [p for p in learning if id(p) in matrices], [p for p in learning if id(p) not in matrices]


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


def _eight_bit(name: str) -> Callable[..., torch.optim.Optimizer]:
    try:
        from train.eight_bit import EIGHT_BIT
    except ImportError as error:
        raise ConfigError(
            f"optim.name: {name} needs bitsandbytes ({error}); pip install bitsandbytes, or use adamw"
        ) from error
    return EIGHT_BIT[name]
