"""The loss of all diffusion recipes, a mean over the pictures of the batch."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from gdf import GDF, Diffused
from train.rng import StepRng


class DiffusionLoss(NamedTuple):
    """One evaluation of a diffusion network, with what the metrics and sample sheets need of it."""

    loss: Tensor  # scalar, weighted by the diffusion's loss weight
    per_picture: Tensor  # [B], mean squared error without the weight, detached
    diffused: Diffused
    prediction: Tensor  # [B, C, H, W], what the network said


def diffusion_loss(
    network: nn.Module,
    diffusion: GDF,
    latents: Tensor,
    conditions: Mapping[str, Tensor],
    rng: StepRng,
    *,
    noise: Tensor | None = None,
    shift: float = 1.0,
    loss_shift: float = 1.0,
) -> DiffusionLoss:
    """Noise the latents to a random time and ask the network for the diffusion's target.

    latents: [B, C, H, W] clean. conditions: keywords of the network's forward. noise: [B, C, H, W], unit
    variance, in place of white noise. shift, loss_shift: resolution factors of the schedule and of the loss
    weight (log-SNR + 2 ln(1/shift), Hoogeboom et al. 2023). Random times and noise come from one generator
    per picture.
    """
    diffused = diffusion.diffuse(latents, noise, shift=shift, loss_shift=loss_shift, generators=rng.samples)
    prediction = network(diffused.noised, diffused.noise_cond, **conditions).float()
    error = (prediction - diffused.target).square().mean(dim=(1, 2, 3))  # [B]
    return DiffusionLoss((error * diffused.loss_weight).mean(), error.detach(), diffused, prediction)
