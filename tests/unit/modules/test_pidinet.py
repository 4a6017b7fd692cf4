"""Convolutions of pixel differences against their definition, and the released layout."""

import pytest
import torch
from torch import Tensor

from modules.adapters.pidinet import DifferenceConv2d, PiDiNet

CLOCKWISE = [0, 1, 2, 5, 8, 7, 6, 3]  # the ring of a 3 x 3 window, from its upper left
DIRECTIONS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def central(window: Tensor, weight: Tensor) -> Tensor:
    inner = window[1:4, 1:4]
    return (weight * (inner - window[2, 2])).sum()


def angular(window: Tensor, weight: Tensor) -> Tensor:
    inner, weights = window[1:4, 1:4].flatten(), weight.flatten()
    steps = zip(CLOCKWISE, CLOCKWISE[1:] + CLOCKWISE[:1], strict=True)
    return sum((weights[a] * (inner[a] - inner[b]) for a, b in steps), start=torch.zeros(()))


def radial(window: Tensor, weight: Tensor) -> Tensor:
    pairs = zip(weight.flatten()[1:], DIRECTIONS, strict=True)
    return sum(
        (w * (window[2 + 2 * dy, 2 + 2 * dx] - window[2 + dy, 2 + dx]) for w, (dy, dx) in pairs),
        start=torch.zeros(()),
    )


def plain(window: Tensor, weight: Tensor) -> Tensor:
    return (weight * window[1:4, 1:4]).sum()


@pytest.mark.parametrize(("layer", "expected"), list(enumerate([central, angular, radial, plain])))
def test_difference_convolutions_do_what_the_paper_defines(layer: int, expected: object) -> None:
    torch.manual_seed(0)
    conv, window = DifferenceConv2d(1, 1, layer), torch.rand(5, 5)
    with torch.no_grad():
        found = conv(window[None, None])[0, 0, 2, 2]
        torch.testing.assert_close(found, expected(window, conv.weight[0, 0]))  # type: ignore[operator]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_differences_of_an_even_picture_are_zero(layer: int) -> None:
    conv = DifferenceConv2d(3, 4, layer)
    inner = conv(torch.full((1, 3, 9, 9), 0.7))[..., 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.zeros_like(inner), atol=1e-5, rtol=0)


def test_kinds_of_convolution_take_turns() -> None:
    kinds = [part.kernel.__name__ for part in PiDiNet().modules() if isinstance(part, DifferenceConv2d)]
    assert kinds == 4 * ["central", "angular", "radial", "plain"]


@pytest.mark.parametrize("size", [(32, 48), (37, 21)])
def test_edges_have_the_pictures_size_and_every_weight_counts(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = PiDiNet()
    edges = network(torch.rand(1, 3, *size))
    assert edges.shape == (1, 1, *size) and edges.min() > 0 and edges.max() < 1
    edges.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
