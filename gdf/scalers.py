"""Scalers: the signal a and noise b that a log-SNR stands for: x = a x0 + b noise, a² / b² = exp(log-SNR)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from gdf.schedules import BaseSchedule
from gdf.tensors import at_least_float32


class BaseScaler(ABC):
    """stretched_limits: (min a, max a, min b, max b) that are stretched to 0 and 1, or None."""

    def __init__(self) -> None:
        self.stretched_limits: tuple[float, float, float, float] | None = None

    @abstractmethod
    def scalers(self, logSNR: Tensor) -> tuple[Tensor, Tensor]:
        """a and b for log-SNRs of any shape, before stretching."""

    def setup_limits(
        self, schedule: BaseSchedule, stretch_max: bool = True, stretch_min: bool = True, shift: float = 1.0
    ) -> tuple[float, float, float, float]:
        """Stretch a and b so that the schedule's ends become pure noise and pure signal, and return the
        limits.

        stretch_max: a = 0, b = 1 at t = 1 (no signal is left: Lin et al. 2023, "Common Diffusion Noise
            Schedules").
        stretch_min: a = 1, b = 0 at t = 0. shift: as in sampling.
        """
        ends = schedule(torch.tensor([1.0, 0.0], device="cpu", dtype=torch.float64), shift)
        (min_a, max_a), (max_b, min_b) = (values.tolist() for values in self.scalers(ends))
        if not stretch_max:
            min_a, max_b = 0.0, 1.0
        if not stretch_min:
            max_a, min_b = 1.0, 0.0
        self.stretched_limits = (min_a, max_a, min_b, max_b)
        return self.stretched_limits

    def __call__(self, logSNR: Tensor) -> tuple[Tensor, Tensor]:
        """a and b, each of logSNR's shape, float32 or float64."""
        a, b = self.scalers(at_least_float32(logSNR))
        if self.stretched_limits is None:
            return a, b
        min_a, max_a, min_b, max_b = self.stretched_limits
        return (a - min_a) / (max_a - min_a), (b - min_b) / (max_b - min_b)


class VPScaler(BaseScaler):
    """Variance preserving: a² + b² = 1 (Kingma et al. 2021, "Variational Diffusion Models", section 3)."""

    def scalers(self, logSNR: Tensor) -> tuple[Tensor, Tensor]:
        # b from its own sigmoid: sqrt(1 - a²) loses all its digits at high log-SNR.
        return logSNR.sigmoid().sqrt(), (-logSNR).sigmoid().sqrt()


class LERPScaler(BaseScaler):
    """The straight path between signal and noise: a + b = 1 (Liu et al. 2022, "Rectified Flow")."""

    def scalers(self, logSNR: Tensor) -> tuple[Tensor, Tensor]:
        # a / (1 - a) = exp(log-SNR / 2)
        return (logSNR / 2).sigmoid(), (-logSNR / 2).sigmoid()
