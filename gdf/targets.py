"""Targets: what a model is asked to predict, and how signal and noise are got back from it.

Everywhere x = a x0 + b noise; a and b are broadcast over x. Where a (or b) is exactly 0, x says nothing of
x0 (or of the noise); a prediction that does not say it either then gives 0, its mean.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from gdf.tensors import divide_or_zero


class BaseTarget(ABC):
    """One parametrisation of the prediction."""

    @abstractmethod
    def __call__(self, x0: Tensor, epsilon: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """What the model should predict at x = a x0 + b epsilon."""

    @abstractmethod
    def x0(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The signal that the prediction implies."""

    @abstractmethod
    def epsilon(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The noise that the prediction implies."""


class EpsilonTarget(BaseTarget):
    """The noise (Ho et al. 2020)."""

    def __call__(self, x0: Tensor, epsilon: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return epsilon

    def x0(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return divide_or_zero(noised - pred * b, a)

    def epsilon(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return pred


class X0Target(BaseTarget):
    """The signal."""

    def __call__(self, x0: Tensor, epsilon: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return x0

    def x0(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return pred

    def epsilon(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return divide_or_zero(noised - pred * a, b)


class VTarget(BaseTarget):
    """v = a noise - b x0, the velocity on the circle of (x0, noise) (Salimans & Ho 2022)."""

    def __call__(self, x0: Tensor, epsilon: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return a * epsilon - b * x0

    # x = a x0 + b noise and v = a noise - b x0 solved for x0 and noise; a² + b² is 1 only for an
    # unstretched VPScaler.
    def x0(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (noised * a - pred * b) / (a**2 + b**2)

    def epsilon(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (noised * b + pred * a) / (a**2 + b**2)


@dataclass
class RectifiedFlowsTarget(BaseTarget):
    """noise - x0, the velocity on the straight path (Liu et al. 2022).

    assume_straight: take a + b = 1 for granted, as the published code does, which is wrong for any scaler
        but an unstretched LERPScaler.
    """

    assume_straight: bool = False

    def __call__(self, x0: Tensor, epsilon: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return epsilon - x0

    def x0(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (noised - pred * b) / self._sum(a, b)

    def epsilon(self, noised: Tensor, pred: Tensor, logSNR: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (noised + pred * a) / self._sum(a, b)

    def _sum(self, a: Tensor, b: Tensor) -> Tensor | float:
        return 1.0 if self.assume_straight else a + b
