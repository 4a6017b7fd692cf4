"""What a sampler is: one step from a noisier log-SNR to a cleaner one.

With x = a x0 + b noise at the present log-SNR and a', b' at the next, the solution of the probability-flow
ODE is x' = a' x0 + b' noise for as long as the estimates of x0 and noise do not change on the way (a
scaler's path from x0 to noise is a straight line in the coordinates x / (a + b) and beta = b / (a + b)).
Every sampler is that plus something. Only ratios of a and b are used, so each works with every schedule,
scaler and target.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gdf.scalers import BaseScaler
from gdf.tensors import expand_like


class Estimate(NamedTuple):
    """What the model says at one point of the path: log-SNR [1], signal and noise [B, ...]."""

    logSNR: Tensor
    x0: Tensor
    epsilon: Tensor


class Step(NamedTuple):
    """One step, as a sampler sees it."""

    now: Estimate
    next_logSNR: Tensor  # [1]
    previous: Estimate | None  # of the step before; None at the first
    is_last: bool  # ends at t = 0, where nothing removes what noise is left
    scaler: BaseScaler
    randn: Callable[[], Tensor]  # fresh normal noise of x0's shape
    estimate_next: Callable[[Tensor], Estimate]  # calls the model at next_logSNR

    def scales(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """a and b now, and a and b at the next log-SNR, broadcastable over x0."""
        pairs = (*self.scaler(self.now.logSNR), *self.scaler(self.next_logSNR))
        a, b, a_next, b_next = (expand_like(value, self.now.x0) for value in pairs)
        return a, b, a_next, b_next


@dataclass
class BaseSampler(ABC):
    """A sampler has no state of its own: what it needs to remember is in the Step."""

    @abstractmethod
    def step(self, step: Step) -> Tensor:
        """x at the next log-SNR [B, ...]."""


@dataclass(kw_only=True)
class StochasticSampler(BaseSampler):
    """x' = a' x0 + b' (sqrt(1 - share²) noise + share fresh noise).

    noise_on_last_step: also add fresh noise in the step to t = 0, as the published code does; it stays in the
        picture.
    """

    noise_on_last_step: bool = False

    @abstractmethod
    def fresh_share(self, step: Step) -> Tensor | float:
        """The share of b' that is fresh noise, in [0, 1]; the float 0 when nothing need be drawn."""

    def step(self, step: Step) -> Tensor:
        _, _, a, b = step.scales()
        share = 0.0 if step.is_last and not self.noise_on_last_step else self.fresh_share(step)
        if isinstance(share, float) and share == 0:
            return a * step.now.x0 + b * step.now.epsilon
        share = torch.as_tensor(share)
        kept = (1 - share**2).clamp(min=0).sqrt()
        return a * step.now.x0 + b * (kept * step.now.epsilon + share * step.randn())


def half_log_snr(scaler: BaseScaler, logSNR: Tensor) -> Tensor:
    """ln(a / b), which is log-SNR / 2 unless the scaler is stretched."""
    a, b = scaler(logSNR)
    return a.log() - b.log()
