"""Losses: their laws, their minima, and that the adaptive weight balances two pulls."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gdf
from train.losses.adversary import (
    adaptive_weight,
    conv1x1_weight_gradient,
    hinge_discriminator_loss,
    hinge_generator_loss,
)
from train.losses.diffusion import diffusion_loss
from train.losses.pixels import pixel_loss
from train.rng import StepRng

SPEC = {
    "schedule": {"name": "CosineSchedule", "clamp_range": [0.0001, 0.9999]},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "EpsilonTarget"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "P2LossWeight"},
}


def step_rng(pictures: int, first: int = 0) -> StepRng:
    samples = [torch.Generator().manual_seed(50 + first + index) for index in range(pictures)]
    return StepRng(shared=torch.Generator().manual_seed(3), samples=samples)


class Oracle(nn.Module):
    """Knows the clean latents, and so the noise exactly (epsilon of a variance-preserving diffusion)."""

    def __init__(self, latents: torch.Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.latents, self.bias, self.seen = latents, bias, {}

    def forward(self, x: torch.Tensor, noise_cond: torch.Tensor, **conditions: torch.Tensor) -> torch.Tensor:
        self.seen = {"x": x, "noise_cond": noise_cond, **conditions}
        angle = torch.stack([noise_cond, torch.zeros_like(noise_cond)]) + 0.008
        power = torch.cos(angle / 1.008 * torch.pi / 2).square()
        signal = (power[0] / power[1]).clamp(0.0001, 0.9999).sqrt().view(-1, 1, 1, 1)
        return (x - signal * self.latents) / (1 - signal**2).sqrt() + self.bias


def test_a_network_that_knows_the_noise_has_no_loss() -> None:
    latents = torch.randn(6, 4, 8, 8)
    result = diffusion_loss(Oracle(latents), gdf.build(SPEC), latents, {}, step_rng(6))
    assert result.per_picture.max() < 1e-3


def test_a_constant_error_counts_with_the_loss_weight() -> None:
    latents = torch.randn(6, 4, 8, 8)
    result = diffusion_loss(Oracle(latents, bias=0.5), gdf.build(SPEC), latents, {}, step_rng(6))
    assert torch.allclose(result.per_picture, torch.full((6,), 0.25), rtol=0.1)
    expected = (result.per_picture * result.diffused.loss_weight).mean()
    assert torch.allclose(result.loss, expected)


def test_conditions_reach_the_network_by_name() -> None:
    latents, network = torch.randn(2, 4, 8, 8), Oracle(torch.zeros(2, 4, 8, 8))
    diffusion_loss(network, gdf.build(SPEC), latents, {"effnet": latents, "clip": None}, step_rng(2))
    assert network.seen["effnet"] is latents and network.seen["clip"] is None


def test_given_noise_is_used() -> None:
    latents, noise = torch.randn(2, 4, 8, 8), torch.full((2, 4, 8, 8), 2.0)
    result = diffusion_loss(Oracle(latents), gdf.build(SPEC), latents, {}, step_rng(2), noise=noise)
    assert torch.equal(result.diffused.noise, noise)
    assert torch.allclose(result.diffused.target, noise)


def test_one_batch_of_eight_equals_four_of_two() -> None:
    latents, diffusion = torch.randn(8, 4, 8, 8), gdf.build(SPEC)
    network = nn.Conv2d(4, 4, 3, padding=1)

    def loss(first: int, count: int) -> torch.Tensor:
        part = latents[first : first + count]
        return diffusion_loss(lambda x, r: network(x), diffusion, part, {}, step_rng(count, first)).loss

    parts = torch.stack([loss(first, 2) for first in range(0, 8, 2)])
    assert torch.allclose(loss(0, 8), parts.mean(), rtol=1e-6)


def test_pixel_loss_weighs_both_norms() -> None:
    a, b = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    assert torch.allclose(pixel_loss(a, b, 2.0, 0.0), 2 * F.l1_loss(a, b))
    assert torch.allclose(pixel_loss(a, b, 1.0, 3.0), F.l1_loss(a, b) + 3 * F.mse_loss(a, b))
    assert pixel_loss(a, a, 1.0, 1.0) == 0


def test_hinge_rewards_a_margin_and_no_more() -> None:
    right, wrong = torch.full((2, 1, 3, 3), 1.0), torch.full((2, 1, 3, 3), -1.0)
    assert hinge_discriminator_loss(right, wrong) == 0
    assert hinge_discriminator_loss(10 * right, 10 * wrong) == 0
    assert hinge_discriminator_loss(wrong, right) == 2
    assert hinge_generator_loss(right) < hinge_generator_loss(wrong)


def test_the_adaptive_weight_makes_the_pulls_equal() -> None:
    reconstruction, adversarial = torch.randn(12, 16), 0.01 * torch.randn(12, 16)
    weight = adaptive_weight(reconstruction, adversarial)
    assert (weight * adversarial).norm() == pytest.approx(reconstruction.norm().item(), rel=1e-2)
    assert adaptive_weight(reconstruction, torch.zeros(12, 16)) == 1e4
    assert adaptive_weight(torch.zeros(12, 16), adversarial) == 0


def test_the_weight_gradient_is_autograds() -> None:
    layer, features = nn.Conv2d(5, 7, 1), torch.randn(3, 5, 4, 6)
    output = layer(features)
    (gradient,) = torch.autograd.grad(output.square().sum(), output, retain_graph=True)
    (expected,) = torch.autograd.grad(output.square().sum(), layer.weight)
    assert torch.allclose(
        conv1x1_weight_gradient(features, gradient), expected[..., 0, 0], rtol=1e-4, atol=1e-5
    )
