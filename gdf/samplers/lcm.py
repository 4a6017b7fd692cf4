"""LCM: the sampler of consistency models."""

from dataclasses import dataclass

from torch import Tensor

from gdf.samplers.base import Step, StochasticSampler


@dataclass
class LCMSampler(StochasticSampler):
    """Multistep consistency sampling: all noise is fresh (Song et al. 2023, algorithm 1; Luo et al. 2023)."""

    def fresh_share(self, step: Step) -> Tensor | float:
        return 1.0
