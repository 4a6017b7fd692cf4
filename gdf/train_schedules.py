"""Schedules meant for training: a normal distribution of noise levels, and one that follows the loss."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gdf.buckets import LossBuckets, even_edges
from gdf.noise import Randomness, randn
from gdf.schedules import BaseSchedule
from gdf.tables import interpolate


@dataclass
class EDMTrainSchedule(BaseSchedule):
    """ln sigma ~ N(mu, std²), so log-SNR = -2 ln sigma ~ N(-2 mu, (2 std)²) (Karras et al. 2022, table 1).

    The published code has the sign of the mean reversed; mu = 1.2 gives what it computes.
    As a function of t it is the distribution's quantile, t and 1 - t being at least 0.001. It has no
    limits: a draw may lie anywhere.
    """

    mu: float = -1.2
    std: float = 1.2
    force_limits: bool = field(default=False, kw_only=True)

    def schedule(self, t: Tensor) -> Tensor:
        return -2 * (self.mu + self.std * torch.special.ndtri(t.clamp(0.001, 0.999)))

    def draw(self, batch_size: int, generators: Randomness | None, device: torch.device | str) -> Tensor:
        return -2 * (self.mu + self.std * randn([batch_size], generators, device))


@dataclass
class AdaptiveTrainSchedule(BaseSchedule, LossBuckets):
    """Draws each log-SNR bucket in proportion to its running mean loss, and evenly inside the bucket.

    logsnr_range: covered by `buckets` buckets of equal width; a log-SNR out of it counts for the nearest
        bucket.
    min_probs: added to every bucket's loss. As a function of t it is the quantile of the distribution.
    """

    logsnr_range: Sequence[float] = (-10, 10)
    buckets: int = 100
    min_probs: float = 0.0

    def __post_init__(self) -> None:
        self.ends = even_edges(self.logsnr_range, self.buckets + 1)
        LossBuckets.__init__(self, self.ends[1:-1])
        super().__post_init__()

    def probabilities(self) -> Tensor:
        """The chance of each bucket [buckets]."""
        weights = self.bucket_losses + self.min_probs
        return weights / weights.sum()

    def schedule(self, t: Tensor) -> Tensor:
        cumulative = torch.cat([self.ends.new_zeros(1), self.probabilities().cumsum(0)])
        return interpolate(1 - t, (cumulative / cumulative[-1]).to(t), self.ends.to(t))
