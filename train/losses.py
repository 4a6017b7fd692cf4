"""The losses of all recipes; every one is a mean over the pictures of the batch."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
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


def pixel_loss(reconstruction: Tensor, images: Tensor, l1: float, l2: float) -> Tensor:
    """Weighted sum of mean absolute and mean squared difference; a scalar."""
    loss = reconstruction.new_zeros(())
    if l1:
        loss = loss + l1 * F.l1_loss(reconstruction, images)
    if l2:
        loss = loss + l2 * F.mse_loss(reconstruction, images)
    return loss


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss of the discriminator (Lim & Ye 2017): 0 where real > 1 and fake < −1."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """Hinge loss of the generator: it falls as the discriminator takes its pictures for real ones."""
    return -fake_logits.mean()


def adaptive_weight(
    reconstruction_gradient: Tensor, adversarial_gradient: Tensor, limit: float = 1e4
) -> Tensor:
    """How many times stronger the reconstruction pulls at the last decoder layer than the adversary does.

    VQGAN's lambda (Esser et al. 2021, arXiv:2012.09841, equation 7): |grad L_rec| / (|grad L_adv| + 1e-4),
    between 0 and limit. The gradients may be of any one shape. Returns a scalar.
    """
    ratio = reconstruction_gradient.norm() / (adversarial_gradient.norm() + 1e-4)
    return ratio.clamp(max=limit)


def conv1x1_weight_gradient(features: Tensor, output_gradient: Tensor) -> Tensor:
    """Gradient of a 1 x 1 convolution's weight, from its input and its output's gradient.

    features: [B, C, H, W]. output_gradient: [B, D, H, W]. Returns [D, C]. Going through the output instead of
    asking autograd for the parameter keeps parameters that are sharded, replicated or compiled out of it.
    """
    return torch.einsum("bchw,bdhw->dc", features, output_gradient)
