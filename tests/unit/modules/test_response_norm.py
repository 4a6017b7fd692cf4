"""Global response normalisation: contrast by energy, its gradient, and its number formats."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from modules.response_norm import GlobalResponseNorm, channel_energy

FORMATS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


def test_global_response_norm_starts_as_the_identity() -> None:
    x = torch.randn(2, 5, 6, 8)
    torch.testing.assert_close(GlobalResponseNorm(8)(x), x)


def test_global_response_norm_lifts_strong_channels() -> None:
    norm = GlobalResponseNorm(2)
    nn.init.ones_(norm.gamma)
    x = torch.tensor([3.0, 1.0]).expand(1, 4, 4, 2)
    y = norm(x)  # energies 3 : 1, mean 2, so contrasts 1.5 and 0.5
    torch.testing.assert_close(y[0, 0, 0], torch.tensor([3 * 2.5, 1 * 1.5]))


def test_global_response_norm_of_silent_channels_has_a_gradient() -> None:
    norm = GlobalResponseNorm(2)
    nn.init.ones_(norm.gamma)
    x = torch.zeros(1, 4, 4, 2, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@FORMATS
def test_channel_energy_is_the_norm_over_the_picture(dtype: torch.dtype) -> None:
    x = torch.randn(2, 24, 24, 8).to(dtype)
    expected = x.double().square().sum(dim=(1, 2), keepdim=True).sqrt()
    found = channel_energy(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=5e-3, atol=0)


@FORMATS
def test_small_terms_of_the_energy_are_not_lost(dtype: torch.dtype) -> None:
    x = torch.full((1, 64, 64, 1), 0.1, dtype=dtype)
    x[0, 0, 0] = 16  # 4095 terms of 0.01, each lost beside 256 in bf16
    expected = x.double().square().sum().sqrt().item()
    assert channel_energy(x).item() == pytest.approx(expected, rel=0.01)


def test_energy_of_half_precision_does_not_overflow() -> None:
    x = torch.full((1, 24, 24, 2), 6e4, dtype=torch.float16)
    torch.testing.assert_close(channel_energy(x), torch.full((1, 1, 1, 2), 6e4 * 24), rtol=1e-3, atol=0)


def test_norm_has_the_gradient_of_its_formula() -> None:
    norm = GlobalResponseNorm(5)

    def call(x: Tensor, gamma: Tensor, beta: Tensor, down: float) -> Tensor:
        return functional_call(norm, {"gamma": gamma, "beta": beta}, (x, down))

    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    gamma, beta = (torch.randn(1, 1, 1, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for down in (1.0, 3.0):
        assert torch.autograd.gradcheck(call, (x, gamma, beta, down))
    assert torch.autograd.gradcheck(call, (x, gamma.detach(), beta.detach(), 1.0))


def test_bfloat16_gradient_agrees_with_float32() -> None:
    norm, x = GlobalResponseNorm(8), torch.randn(2, 24, 24, 8)
    nn.init.normal_(norm.gamma)
    weights = torch.randn_like(x)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        given = x.to(dtype, copy=True).requires_grad_()
        (norm.to(dtype)(given) * weights.to(dtype)).sum().backward()
        assert given.grad is not None
        gradients.append(given.grad.float())
    assert (gradients[0] - gradients[1]).abs().max() < 0.02 * gradients[0].abs().max()


def test_bfloat16_is_not_copied_in_float32() -> None:
    x = torch.randn(2, 24, 24, 64, dtype=torch.bfloat16, requires_grad=True)
    with torch.profiler.profile(record_shapes=True) as profile:
        GlobalResponseNorm(64).bfloat16()(x).sum().backward()
    copied = [e.input_shapes[0] for e in profile.events() if e.name == "aten::copy_" and e.input_shapes]
    assert [shape for shape in copied if torch.Size(shape).numel() == x.numel()] == []
