"""Global response normalisation (ConvNeXt V2, Woo et al. 2023), without copies of the widest tensors."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALLEST_ENERGY = 1e-6  # keeps the gradient of the root finite at zero
SMALLEST_MEAN = 1e-6


class GlobalResponseNorm(nn.Module):
    """Contrast between channels by their energy over the picture (ConvNeXt V2, eq. 1-3), on [B, H, W, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor, down: float = 1.0) -> Tensor:
        """x: [B, H, W, C]. down: what the result, of the same shape and number format, is divided by."""
        if torch.compiler.is_compiling():  # which joins the formula's loops by itself
            return respond(x, plain_energy(x), self.gamma, self.beta, down)
        if torch.is_grad_enabled():
            return _Response.apply(x, self.gamma, self.beta, down)
        return respond(x, channel_energy(x), self.gamma, self.beta, down)


def respond(x: Tensor, energy: Tensor, gamma: Tensor, beta: Tensor, down: float) -> Tensor:
    """The norm of x [B, H, W, C], given the energy [B, 1, 1, C] of its channels."""
    shift = beta if down == 1 else beta / down
    return torch.addcmul(shift.to(x.dtype), x, scale_of(x, contrast_of(energy)[0], gamma, down))


def contrast_of(energy: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's share of the mean energy, [B, 1, 1, C], and the mean [B, 1, 1, 1]."""
    mean = energy.mean(dim=-1, keepdim=True) + SMALLEST_MEAN
    return energy / mean, mean


def scale_of(x: Tensor, contrast: Tensor, gamma: Tensor, down: float) -> Tensor:
    """What x is multiplied with, [B, 1, 1, C] in its number format."""
    scale = 1 + gamma * contrast
    return (scale if down == 1 else scale / down).to(x.dtype)


class _Response(torch.autograd.Function):
    """`respond` with its energy. The way back makes two tensors as wide as x; by the formula, six."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, down: float) -> Tensor:
        energy = channel_energy(x)
        ctx.save_for_backward(x, energy, gamma)
        ctx.down, ctx.beta_dtype = down, beta.dtype
        return respond(x, energy, gamma, beta, down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, energy, gamma = ctx.saved_tensors
        contrast, mean = contrast_of(energy)
        of_scale = picture_dot(gradient, x) / ctx.down
        of_x = of_gamma = of_beta = None
        if ctx.needs_input_grad[0]:
            of_contrast = of_scale * gamma
            shared = (of_contrast * contrast).mean(dim=-1, keepdim=True)  # each moves the mean of all
            of_energy = (of_contrast - shared) / mean
            of_x = gradient * scale_of(x, contrast, gamma, ctx.down)
            of_x.addcmul_(x, (of_energy / energy).to(x.dtype))
        if ctx.needs_input_grad[1]:
            of_gamma = (of_scale * contrast).sum(dim=0, keepdim=True).to(gamma.dtype)
        if ctx.needs_input_grad[2]:
            of_beta = (gradient.sum(dim=(0, 1, 2), keepdim=True) / ctx.down).to(ctx.beta_dtype)
        return of_x, of_gamma, of_beta, None


def channel_energy(x: Tensor) -> Tensor:
    """The root of the sum of squares over a picture [B, H, W, C]: [B, 1, 1, C], in float32 at least.

    It is added up in float32: bf16 would lose small terms, fp16 overflow.
    """
    if x.device.type != "cpu":
        return torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=wide(x)).clamp_min(SMALLEST_ENERGY)
    # There the norm is 15 times slower than the root of a sum of squares.
    if x.dtype == torch.bfloat16:
        return picture_dot(x, x).sqrt().clamp_min(SMALLEST_ENERGY)
    return plain_energy(x)


def plain_energy(x: Tensor) -> Tensor:
    """The same by its formula."""
    energy = x.to(wide(x)).square().sum(dim=(1, 2), keepdim=True)
    return energy.clamp_min(SMALLEST_ENERGY**2).sqrt()


def picture_dot(x: Tensor, y: Tensor) -> Tensor:
    """The sum over a picture of x times y, both [B, H, W, C]: [B, 1, 1, C], added up in float32 at least."""
    terms = x * y
    if x.device.type == "cpu" and x.dtype == torch.bfloat16:
        # A sum in another number format than its terms' copies them there. Products add up in float32.
        ones = terms.new_ones(len(x), 1, x.shape[1] * x.shape[2])
        return torch.bmm(ones, terms.flatten(1, 2))[:, :, None].float()
    return terms.sum(dim=(1, 2), keepdim=True, dtype=wide(x))


def wide(x: Tensor) -> torch.dtype:
    """The number format of x, or float32 where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)
