"""DDIM: deterministic, or with a share of fresh noise in every step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gdf.samplers.base import Step, StochasticSampler


@dataclass
class DDIMSampler(StochasticSampler):
    """Deterministic for eta = 0, ancestral for eta = 1 (Song et al. 2020, eq. 12 and 16).

    The share of fresh noise is eta sqrt(1 - SNR / SNR'), which for a variance-preserving scaler is the
    paper's sigma / b' and never exceeds 1 for any other.
    """

    eta: float = 0.0

    def fresh_share(self, step: Step) -> Tensor | float:
        if self.eta == 0:
            return 0.0
        a, b, a_next, b_next = step.scales()
        ratio, next_ratio = a * b_next, a_next * b
        # 0 / 0 where the schedule stays at a stretched end: the log-SNR does not change.
        same = next_ratio == 0
        kept = torch.where(same, 1.0, ratio / torch.where(same, 1.0, next_ratio))
        return self.eta * (1 - kept**2).clamp(min=0).sqrt()
