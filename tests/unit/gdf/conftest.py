"""A Gaussian mixture, whose score and whose probability flow are known exactly."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import gdf


class GaussianMixture:
    """Independent values, each N(mean_k, std²) with weight_k, under x = a x0 + b noise."""

    means = torch.tensor([-1.3, 0.1, 1.1], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    std = 0.25

    def posterior_mean(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """E[x0 | x]: by Tweedie's formula the exact score in another form."""
        variance = (a * self.std) ** 2 + b**2
        distance = x[..., None] - a[..., None] * self.means
        responsibility = (self.weights.log() - distance**2 / (2 * variance[..., None])).softmax(-1)
        component = self.means + (a * self.std**2 / variance)[..., None] * distance
        return (responsibility * component).sum(-1)

    def distribution(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """P(value < x)."""
        deviation = ((a * self.std) ** 2 + b**2).sqrt()[..., None]
        return (
            self.weights * torch.special.ndtr((x[..., None] - a[..., None] * self.means) / deviation)
        ).sum(-1)

    def flow(self, x: Tensor, scaler: gdf.BaseScaler, logSNRs: Sequence[float]) -> Tensor:
        """Where the probability flow takes x from the first log-SNR to the last.

        In one dimension the flow keeps the order of the values, and so the distribution function's value.
        """
        (a, a_end), (b, b_end) = scaler(torch.tensor(logSNRs, dtype=torch.float64))
        wanted = self.distribution(x, a, b)
        low, high = torch.full_like(x, -10), torch.full_like(x, 10)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.distribution(middle, a_end, b_end) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return middle

    def model(self, process: gdf.GDF) -> Callable[..., Tensor]:
        """A network that predicts the process's target exactly; its noise condition is the log-SNR."""

        def network(x: Tensor, logSNR: Tensor) -> Tensor:
            a, b = (value.view(-1, *[1] * (x.ndim - 1)) for value in process.input_scaler(logSNR))
            x0 = self.posterior_mean(x, a, b)
            return process.target(x0, (x - a * x0) / b, logSNR, a, b)

        return network


@pytest.fixture
def mixture() -> GaussianMixture:
    return GaussianMixture()
