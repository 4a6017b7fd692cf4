"""A mixture of normal distributions, whose mean given x, and whose probability flow, are known exactly."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import gdf


class GaussianMixture:
    """Single numbers, N(mean_k, std²) with weight_k each, under x = a x0 + b noise."""

    def __init__(
        self,
        means: Sequence[float] = (-1.3, 0.1, 1.1),
        weights: Sequence[float] = (0.3, 0.3, 0.4),
        std: float = 0.15,
    ) -> None:
        self.means = torch.tensor(means, dtype=torch.float64)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.std = std

    def process(self) -> gdf.GDF:
        """A diffusion of it, whose network is told the log-SNR and predicts the noise."""
        schedule, condition = gdf.LinearSchedule((-8, 8)), gdf.LogSNRNoiseCond()
        return gdf.GDF(schedule, gdf.VPScaler(), gdf.EpsilonTarget(), condition, gdf.ConstantLossWeight())

    def mean(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """E[x0 | x]: each component's mean by how likely it is that x came from it; x: [...], a, b alike."""
        variance = ((a * self.std) ** 2 + b**2)[..., None]
        distance = x[..., None] - a[..., None] * self.means
        share = (self.weights.log() - distance**2 / (2 * variance)).softmax(-1)
        return (share * (self.means + a[..., None] * self.std**2 / variance * distance)).sum(-1)

    def network(self, process: gdf.GDF) -> Callable[[Tensor, Tensor], Tensor]:
        """What a network that cannot be bettered predicts: the mean noise in x [B, 1]."""

        def predict(x: Tensor, log_snr: Tensor) -> Tensor:
            a, b = (scale[:, None].expand_as(x) for scale in process.input_scaler(log_snr))
            return (x - a * self.mean(x, a, b)) / b

        return predict

    def sampled(self, process: gdf.GDF, name: str, steps: int, starts: Tensor) -> Tensor:
        """The path of each start [B, 1] under the sampler of that name: [steps + 1, B, 1]."""
        return torch.stack([starts, *self._run(process, self.network(process), name, steps, starts)])

    def guided(self, process: gdf.GDF, condition: "GaussianMixture", scale: float, starts: Tensor) -> Tensor:
        """Where starts [B, 1] end that are guided from this mixture towards `condition`."""
        plain, asked = self.network(process), condition.network(process)

        def predict(x: Tensor, log_snr: Tensor) -> Tensor:
            unconditional = plain(x, log_snr)
            return unconditional + scale * (asked(x, log_snr) - unconditional)

        return self._run(process, predict, "dpmpp_2m", 100, starts)[-1]

    def error(self, process: gdf.GDF, name: str, steps: int) -> float:
        """Root mean square distance from where the exact flow ends."""
        starts = torch.special.ndtri(torch.linspace(0.01, 0.99, 99, dtype=torch.float64))[:, None]
        end = self._run(process, self.network(process), name, steps, starts)[-1]
        return (end - self.flow(process, starts)).square().mean().sqrt().item()

    def flow(self, process: gdf.GDF, x: Tensor) -> Tensor:
        """Where the exact flow takes x from t = 1 to t = 0.

        In one dimension it keeps the order of the numbers, and so the value of the distribution function.
        """
        (a, a_end), (b, b_end) = process.input_scaler(process.schedule(x.new_tensor([1.0, 0.0])))
        wanted, low, high = self._below(x, a, b), torch.full_like(x, -10), torch.full_like(x, 10)
        for _ in range(60):
            middle = (low + high) / 2
            is_below = self._below(middle, a_end, b_end) < wanted
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return middle

    def _below(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """P(number < x)."""
        deviation = ((a * self.std) ** 2 + b**2).sqrt()
        return (self.weights * torch.special.ndtr((x[..., None] - a * self.means) / deviation)).sum(-1)

    def _run(
        self, process: gdf.GDF, network: Callable[..., Tensor], name: str, steps: int, starts: Tensor
    ) -> list[Tensor]:
        chance = torch.Generator().manual_seed(1)
        run = process.sample(
            network,
            {},
            starts.shape,
            sampler=gdf.SAMPLERS[name](),
            timesteps=steps,
            cfg=None,
            x_init=starts,
            generators=chance,
            dtype=torch.float64,
        )
        return [step.x for step in run]
