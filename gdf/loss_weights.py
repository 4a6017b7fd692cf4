"""Loss weights: how much the loss at each log-SNR counts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gdf.buckets import LossBuckets, even_edges
from gdf.tensors import at_least_float32


class BaseLossWeight(ABC):
    """A function of log-SNR; SNR = exp(log-SNR)."""

    @abstractmethod
    def weight(self, logSNR: Tensor) -> Tensor:
        """The weight for log-SNRs of any shape."""

    def __call__(
        self, logSNR: Tensor, shift: float = 1.0, clamp_range: Sequence[float] = (0.0, 1e9)
    ) -> Tensor:
        """The weight, of logSNR's shape, float32 or float64.

        shift: 2 ln(shift) is added to the log-SNR first. clamp_range: the least and the most that is
            returned.
        """
        return self.weight(at_least_float32(logSNR) + 2 * math.log(shift)).clamp(*clamp_range)


@dataclass
class ConstantLossWeight(BaseLossWeight):
    """The same weight v everywhere."""

    v: float = 1.0

    def weight(self, logSNR: Tensor) -> Tensor:
        return logSNR.new_full(logSNR.shape, self.v)


@dataclass
class SNRLossWeight(BaseLossWeight):
    """SNR: on a loss of the noise, the weight 1 on a loss of the signal (Salimans & Ho 2022)."""

    def weight(self, logSNR: Tensor) -> Tensor:
        return logSNR.exp()


@dataclass
class P2LossWeight(BaseLossWeight):
    """1 / (k + SNR^s)^gamma (Choi et al. 2022, "Perception Prioritized Training")."""

    k: float = 1.0
    gamma: float = 1.0
    s: float = 1.0

    def weight(self, logSNR: Tensor) -> Tensor:
        return (self.k + (logSNR * self.s).exp()) ** -self.gamma


@dataclass
class SNRPlusOneLossWeight(BaseLossWeight):
    """SNR + 1 (Salimans & Ho 2022)."""

    def weight(self, logSNR: Tensor) -> Tensor:
        return logSNR.exp() + 1


@dataclass
class MinSNRLossWeight(BaseLossWeight):
    """min(SNR, max_snr) (Hang et al. 2023, "Min-SNR Weighting")."""

    max_snr: float = 5.0

    def weight(self, logSNR: Tensor) -> Tensor:
        return logSNR.exp().clamp(max=self.max_snr)


@dataclass
class MinSNRPlusOneLossWeight(BaseLossWeight):
    """min(SNR + 1, max_snr)."""

    max_snr: float = 5.0

    def weight(self, logSNR: Tensor) -> Tensor:
        return (logSNR.exp() + 1).clamp(max=self.max_snr)


@dataclass
class TruncatedSNRLossWeight(BaseLossWeight):
    """max(SNR, min_snr) (Salimans & Ho 2022)."""

    min_snr: float = 1.0

    def weight(self, logSNR: Tensor) -> Tensor:
        return logSNR.exp().clamp(min=self.min_snr)


@dataclass
class SechLossWeight(BaseLossWeight):
    """sech(log-SNR / div) (Kingma & Gao 2023)."""

    div: float = 2.0

    def weight(self, logSNR: Tensor) -> Tensor:
        return 1 / (logSNR / self.div).cosh()


@dataclass
class DebiasedLossWeight(BaseLossWeight):
    """1 / sqrt(SNR) (Yu et al. 2023, "Debias the Training of Diffusion Models")."""

    def weight(self, logSNR: Tensor) -> Tensor:
        return (-logSNR / 2).exp()


@dataclass
class SigmoidLossWeight(BaseLossWeight):
    """sigmoid(s log-SNR); s = -1 falls with the log-SNR, as in Kingma & Gao 2023."""

    s: float = 1.0

    def weight(self, logSNR: Tensor) -> Tensor:
        return (logSNR * self.s).sigmoid()


@dataclass
class AdaptiveLossWeight(BaseLossWeight, LossBuckets):
    """1 / the running mean loss at this log-SNR, so that every log-SNR counts alike.

    logsnr_range: between its ends lie buckets - 2 buckets of equal width; below and above it is one bucket
        each.
    weight_range: the least and the most that is returned.
    """

    logsnr_range: Sequence[float] = (-10, 10)
    buckets: int = 300
    weight_range: Sequence[float] = (1e-7, 1e7)

    def __post_init__(self) -> None:
        LossBuckets.__init__(self, even_edges(self.logsnr_range, self.buckets - 1))

    def weight(self, logSNR: Tensor) -> Tensor:
        losses = self.bucket_losses.to(logSNR)[self.bucket_index(logSNR)]
        return (1 / losses).clamp(*self.weight_range)


@dataclass
class ComposedLossWeight(BaseLossWeight):
    """The product of the weights `mul` over the product of the weights `div`; each one weight or several."""

    div: BaseLossWeight | Sequence[BaseLossWeight] = ()
    mul: BaseLossWeight | Sequence[BaseLossWeight] = ()

    def parts(self) -> list[BaseLossWeight]:
        """All the weights it is made of."""
        return [*_as_list(self.mul), *_as_list(self.div)]

    def weight(self, logSNR: Tensor) -> Tensor:
        product = logSNR.new_ones(logSNR.shape)
        for factor in _as_list(self.mul):
            product = product * factor(logSNR)
        for divisor in _as_list(self.div):
            product = product / divisor(logSNR)
        return product


def _as_list(weights: BaseLossWeight | Sequence[BaseLossWeight]) -> list[BaseLossWeight]:
    return [weights] if isinstance(weights, BaseLossWeight) else list(weights)
