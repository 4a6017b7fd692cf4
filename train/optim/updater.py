"""One optimizer for all parameters of a player, and its update of any of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.optim.rounding import in_fp32
from train.rng import rounding_rng


class Updater:
    """Updates some of an optimizer's parameters as if they were all; bf16 ones in fp32, one at a time.

    seed: of the run; a rounding's chance is a function of seed, step and the parameter's place.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, seed: int) -> None:
        self.optimizer, self.seed = optimizer, seed
        groups = enumerate(optimizer.param_groups)
        self._group = {parameter: index for index, group in groups for parameter in group["params"]}
        self._place = {parameter: place for place, parameter in enumerate(self._group)}

    def update(self, parameters: Sequence[nn.Parameter], step: int) -> None:
        """Update `parameters`, which have gradients, in step `step` of the run."""
        self._update([parameter for parameter in parameters if parameter.dtype != torch.bfloat16])
        for parameter in parameters:
            if parameter.dtype == torch.bfloat16:
                rng = rounding_rng(self.seed, step, self._place[parameter], parameter.device)
                with in_fp32(parameter, rng):
                    self._update([parameter])

    def _update(self, parameters: Sequence[nn.Parameter]) -> None:
        whole = self.optimizer.param_groups
        chosen: list[list[Tensor]] = [[] for _ in whole]
        for parameter in parameters:
            chosen[self._group[parameter]].append(parameter)
        parts = zip(whole, chosen, strict=True)
        self.optimizer.param_groups = [{**group, "params": part} for group, part in parts if part]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = whole
