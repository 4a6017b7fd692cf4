"""What a diffusion network is told about a picture, and how often it is left in the dark.

Conditions are dropped so that the network also learns to work without them, which guidance needs. All chance
comes from the step's generators: one draw per picture, so that the choice does not depend on how a batch is
cut.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

import gdf
from train.rng import StepRng


def chance(rng: StepRng, probability: float) -> list[bool]:
    """One draw per picture: True with the given probability. Always one draw, whatever the probability."""
    return [torch.rand((), generator=generator).item() < probability for generator in rng.samples]


def drop_captions(captions: Sequence[str], probability: float, rng: StepRng) -> list[str]:
    """Replace captions by the empty one, which is what "no caption" means when sampling."""
    return ["" if dropped else text for text, dropped in zip(captions, chance(rng, probability), strict=True)]


def add_noise(latents: Tensor, deviation: float, rng: StepRng) -> Tensor:
    """Latents [B, C, H, W] with normal noise of this standard deviation; 0 leaves them alone."""
    if not deviation:
        return latents
    return latents + deviation * gdf.randn(latents.shape, rng.samples, latents.device, latents.dtype)


def keep_rows(condition: Tensor, probability: float, rng: StepRng) -> Tensor:
    """Keep each picture's condition [B, ...] with the given probability; zeros take the others' place."""
    kept = torch.tensor(chance(rng, probability), device=condition.device)
    return condition * kept.view(-1, *[1] * (condition.dim() - 1))


def random_scale(low: float, high: float, rng: StepRng) -> float:
    """A factor between low and high, the same for all pictures of the step: they share one tensor."""
    return low + (high - low) * torch.rand((), generator=rng.shared).item()
