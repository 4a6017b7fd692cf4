"""Dropout: the right share falls out, by the seed's chance, and what stays keeps the mean."""

import pytest
import torch
from torch import Tensor

from modules.dropout import Dropout, dropout

FORMATS = [torch.float32, torch.bfloat16, torch.float16]
STEP = 2**-16  # p is a multiple of it
SIGMAS = 5  # of a share's distribution; chance misses them once in two million times


def drop(x: Tensor, p: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return dropout(x, p)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_a_share_of_p_falls_out_and_the_rest_grows(p: float, dtype: torch.dtype) -> None:
    x = torch.ones(401, 1003, dtype=dtype)
    y = drop(x, p)
    assert y.dtype == dtype
    assert y.shape == x.shape
    spread = (p * (1 - p) / x.numel()) ** 0.5
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=SIGMAS * spread)
    (grown,) = y[y != 0].unique().tolist()
    assert grown == pytest.approx(1 / (1 - p), rel=max(torch.finfo(dtype).eps, 2 * STEP / (1 - p)))


def test_entries_fall_out_one_by_one() -> None:
    """Also those whose chance comes from the same random word, or from words side by side."""
    gone = (drop(torch.ones(400_000), 0.3) == 0).double() - 0.3
    for distance in (1, 2, 3, 4, 5, 8):
        together = (gone[distance:] * gone[:-distance]).mean().item()
        assert abs(together) < SIGMAS * 0.21 / len(gone) ** 0.5, distance


@pytest.mark.parametrize(("p", "gone"), [(1e-9, 0), (STEP / 2, 0), (1.0, 1000)])
def test_chances_at_both_ends(p: float, gone: int) -> None:
    assert (drop(torch.ones(1000), p) == 0).sum() == gone


def test_torchs_seed_decides() -> None:
    x = torch.ones(1000)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    assert not torch.equal(first, second)
    assert torch.equal(first, drop(x, 0.5, seed=1))
    assert not torch.equal(first, drop(x, 0.5, seed=2))


def test_a_gradient_goes_where_the_value_went() -> None:
    x = torch.randn(50, 70, requires_grad=True)
    y = drop(x, 0.4)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 3, 4, 5)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert drop(torch.ones(shape), 0.5).shape == shape


def test_ends_of_the_range() -> None:
    x = torch.randn(100)
    assert dropout(x, 0.0) is x
    assert drop(x, 1.0).count_nonzero() == 0


def test_the_layer_drops_only_while_it_learns() -> None:
    layer, x = Dropout(0.5), torch.ones(100)
    assert 0 < layer(x).count_nonzero() < 100
    assert layer.eval()(x) is x
    assert not layer.state_dict()
