"""Makes the optimizer that the settings name, over what learns in a module."""

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
    """AdamW over what learns in `module`; see `decay_groups` for what decays."""
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
    magnitudes have no reason to be small. What has more dimensions decays: matrices, convolutions, and the
    response norms' scales and shifts, which are stored with four.
    """
    exempt = {
        id(p) for m in module.modules() if isinstance(m, UNDECAYED) for p in m.parameters(recurse=False)
    }
    learning = [p for p in module.parameters() if p.requires_grad]
    matrices = {id(p) for p in learning if p.ndim >= 2} - exempt
    return [p for p in learning if id(p) in matrices], [p for p in learning if id(p) not in matrices]


def _eight_bit(name: str) -> Callable[..., torch.optim.Optimizer]:
    try:
        from train.optim.eight_bit import EIGHT_BIT
    except ImportError as error:
        raise ConfigError(
            f"optim.name: {name} needs bitsandbytes ({error}); pip install bitsandbytes, or use adamw"
        ) from error
    return EIGHT_BIT[name]
