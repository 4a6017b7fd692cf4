"""Euler's method."""

from dataclasses import dataclass

from torch import Tensor

from gdf.samplers.base import BaseSampler, Step


@dataclass
class EulerSampler(BaseSampler):
    """Euler's method for the probability-flow ODE; order 1, one call of the model a step.

    The ODE is d(x / (a + b)) / d beta = noise - x0. In coordinates in which the path is straight an Euler
    step is the DDIM step at eta = 0 (Karras et al. 2022).
    """

    def step(self, step: Step) -> Tensor:
        _, _, a, b = step.scales()
        return a * step.now.x0 + b * step.now.epsilon
