"""Noise conditions: the number by which a network is told how noisy its input is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gdf.tables import interpolate_inverse, stable_diffusion_table
from gdf.tensors import at_least_float32


@dataclass(kw_only=True)
class BaseNoiseCond(ABC):
    """A function of log-SNR.

    shift: 2 ln(shift) is added to the log-SNR first, which undoes a schedule's shift of the same value.
    clamp_range: the least and the most that is returned.
    """

    shift: float = 1.0
    clamp_range: Sequence[float] | None = None

    @abstractmethod
    def cond(self, logSNR: Tensor) -> Tensor:
        """The condition for log-SNRs of any shape, before clamp_range."""

    def __call__(self, logSNR: Tensor) -> Tensor:
        """The condition, of logSNR's shape; float32 or float64 except where a class says otherwise."""
        condition = self.cond(at_least_float32(logSNR) + 2 * math.log(self.shift))
        return condition if self.clamp_range is None else condition.clamp(*self.clamp_range)


@dataclass
class CosineTNoiseCond(BaseNoiseCond):
    """The time t in [0, 1] at which an unshifted CosineSchedule(s) has this log-SNR.

    variance_range: the signal variance is cut off to it first (the published code's second positional
        argument).
    """

    s: float = 0.008
    variance_range: Sequence[float] = (0.0, 1.0)

    def cond(self, logSNR: Tensor) -> Tensor:
        low, high = self.variance_range
        signal = logSNR.sigmoid().clamp(low, high)
        noise = (-logSNR).sigmoid().clamp(1 - high, 1 - low)
        unit = math.pi / 2 / (1 + self.s)
        # cos² u = signal cos² u0 and sin² u = noise cos² u0 + sin² u0, with u0 = s unit and t = u / unit - s:
        # unlike the arc cosine, the arc tangent is exact for every angle.
        cos_start, sin_start = math.cos(unit * self.s), math.sin(unit * self.s)
        angle = torch.atan2((noise * cos_start**2 + sin_start**2).sqrt(), signal.sqrt() * cos_start)
        return (angle / unit - self.s).clamp(0, 1)


@dataclass
class EDMNoiseCond(BaseNoiseCond):
    """ln(sigma) / 4 = -log-SNR / 8 (Karras et al. 2022, table 1: c_noise)."""

    def cond(self, logSNR: Tensor) -> Tensor:
        return -logSNR / 8


@dataclass
class EDMSigmaNoiseCond(BaseNoiseCond):
    """sigma = sigma_data exp(-log-SNR / 2), noise against data of standard deviation sigma_data."""

    sigma_data: float = 1.0

    def cond(self, logSNR: Tensor) -> Tensor:
        return (-logSNR / 2).exp() * self.sigma_data


@dataclass
class SigmoidNoiseCond(BaseNoiseCond):
    """The noise variance of the variance-preserving mixture, sigmoid(-log-SNR)."""

    def cond(self, logSNR: Tensor) -> Tensor:
        return (-logSNR).sigmoid()


@dataclass
class LogSNRNoiseCond(BaseNoiseCond):
    """The log-SNR itself."""

    def cond(self, logSNR: Tensor) -> Tensor:
        return logSNR


@dataclass
class RectifiedFlowsNoiseCond(BaseNoiseCond):
    """The share of the signal on the straight path, sigmoid(log-SNR / 2): 1 - t of RectifiedFlowsSchedule."""

    def cond(self, logSNR: Tensor) -> Tensor:
        return (logSNR / 2).sigmoid()


@dataclass
class PiecewiseLinearNoiseCond(BaseNoiseCond):
    """The time x at which a PiecewiseLinearSchedule of falling signal variances y has this log-SNR."""

    x: Sequence[float]
    y: Sequence[float]

    def cond(self, logSNR: Tensor) -> Tensor:
        return interpolate_inverse(logSNR.sigmoid(), logSNR.new_tensor(self.x), logSNR.new_tensor(self.y))


@dataclass
class StableDiffusionNoiseCond(BaseNoiseCond):
    """The time in [0, 1] at which the StableDiffusionSchedule of the same arguments has this log-SNR.

    extrapolate: as the published code, from the straight line of the step before: wrong by up to 1e-4.
    """

    linear_range: Sequence[float] = (0.00085, 0.012)
    total_steps: int = 1000
    extrapolate: bool = False

    def cond(self, logSNR: Tensor) -> Tensor:
        times, variances = stable_diffusion_table(self.linear_range, self.total_steps)
        return interpolate_inverse(logSNR.sigmoid(), times.to(logSNR), variances.to(logSNR), self.extrapolate)


@dataclass
class DiscreteNoiseCond(BaseNoiseCond):
    """Another condition, whose continuous_range is cut into `steps` equal steps: int64 in 0 .. steps - 1.

    (The published code gives the same whole numbers as floats.)
    """

    noise_cond: BaseNoiseCond
    steps: int = 1000
    continuous_range: Sequence[float] = (0, 1)

    def cond(self, logSNR: Tensor) -> Tensor:
        low, high = self.continuous_range
        share = (self.noise_cond(logSNR) - low) / (high - low)
        return (share * self.steps).floor().long().clamp(0, self.steps - 1)
