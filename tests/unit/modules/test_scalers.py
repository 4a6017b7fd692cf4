"""Stage B's scalers are torch's convolutions, computed as products on a CPU."""

import pytest
import torch
from torch import nn

from modules.scalers import Doubling, Halving


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("made", "torchs"),
    [
        (Halving(6, 10).double(), nn.Conv2d(6, 10, 2, stride=2).double()),
        (Doubling(6, 10).double(), nn.ConvTranspose2d(6, 10, 2, stride=2).double()),
    ],
)
def test_numbers_gradients_and_names_are_those_of_convolutions(
    made: nn.Module, torchs: nn.Module, size: tuple[int, int], layout: torch.memory_format
) -> None:
    torchs.load_state_dict(made.state_dict())
    x = torch.randn(2, 6, *size, dtype=torch.double).contiguous(memory_format=layout).requires_grad_()
    found, expected = made(x), torchs(x)
    torch.testing.assert_close(found, expected)
    outer = torch.randn_like(expected)
    ours = torch.autograd.grad(found, [x, *made.parameters()], outer)
    theirs = torch.autograd.grad(expected, [x, *torchs.parameters()], outer)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
