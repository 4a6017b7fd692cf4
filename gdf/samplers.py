"""Samplers: one step from a noisier log-SNR to a cleaner one.

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
        return self.eta * (1 - (a * b_next / (a_next * b)) ** 2).clamp(min=0).sqrt()


@dataclass
class DDPMSampler(DDIMSampler):
    """Ancestral sampling (Ho et al. 2020): DDIM with eta = 1."""

    eta: float = 1.0


@dataclass
class LCMSampler(StochasticSampler):
    """Multistep consistency sampling: all noise is fresh (Song et al. 2023, algorithm 1; Luo et al. 2023)."""

    def fresh_share(self, step: Step) -> Tensor | float:
        return 1.0


@dataclass
class EulerSampler(BaseSampler):
    """Euler's method for the probability-flow ODE; order 1, one call of the model a step.

    The ODE is d(x / (a + b)) / d beta = noise - x0. In coordinates in which the path is straight an Euler
    step is the DDIM step at eta = 0 (Karras et al. 2022, C.3).
    """

    def step(self, step: Step) -> Tensor:
        _, _, a, b = step.scales()
        return a * step.now.x0 + b * step.now.epsilon


@dataclass
class HeunSampler(EulerSampler):
    """Heun's method for the same ODE: the mean slope of both ends (Karras et al. 2022, algorithm 1).

    Order 2, two calls of the model a step.
    """

    def step(self, step: Step) -> Tensor:
        a, b, a_next, b_next = step.scales()
        euler = super().step(step)
        other = step.estimate_next(euler)
        slope, other_slope = step.now.epsilon - step.now.x0, other.epsilon - other.x0
        beta_step = b_next / (a_next + b_next) - b / (a + b)
        correction = (a_next + b_next) * beta_step / 2 * (other_slope - slope)
        # Without noise the model cannot tell what the noise is.
        return torch.where(b_next == 0, euler, euler + correction)


@dataclass
class DPMSolverPP2MSampler(BaseSampler):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): order 2 with one call of the model a step.

    With L = log-SNR / 2 and h = L' - L the solution is x' = (b' / b) x - a' (exp(-h) - 1) D for a constant
    estimate D of x0. D continues the line through the previous and the present estimate to the middle of the
    step: D = x0 + r (x0 - x0_previous), r = h / (2 h_previous). The first step has no previous estimate and
    takes D = x0, as DDIM does in every step.

    lower_order_final: D = x0 in the step to t = 0 too, which is usually a long one.
    max_ratio: the most that r may be. 0.5, its value for equal steps, keeps growing steps from extrapolating
        further than that; infinity is the paper's algorithm, mostly further from the truth for few steps.
    """

    lower_order_final: bool = True
    max_ratio: float = 0.5

    def step(self, step: Step) -> Tensor:
        a, b, a_next, b_next = step.scales()
        constant = a_next * step.now.x0 + b_next * step.now.epsilon
        if step.previous is None or (step.is_last and self.lower_order_final):
            return constant
        half = a.log() - b.log()
        h_previous = half - half_log_snr(step.scaler, step.previous.logSNR).view_as(half)
        ratio = (a_next.log() - b_next.log() - half) / (2 * h_previous)
        # 0 / 0: the previous point was at the same log-SNR.
        ratio = ratio.nan_to_num(0.0, posinf=self.max_ratio).clamp(max=self.max_ratio)
        # -a' (exp(-h) - 1) = a' - a b' / b
        return constant + (a_next - a * b_next / b) * ratio * (step.now.x0 - step.previous.x0)


def half_log_snr(scaler: BaseScaler, logSNR: Tensor) -> Tensor:
    """ln(a / b), which is log-SNR / 2 unless the scaler is stretched."""
    a, b = scaler(logSNR)
    return a.log() - b.log()
