"""Heun's method."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gdf.samplers.base import Step
from gdf.samplers.euler import EulerSampler


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
