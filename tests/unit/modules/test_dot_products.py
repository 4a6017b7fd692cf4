"""Scaled dot product attention: its formula, whichever way it is computed; and which way that is."""

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

from modules import dot_products as module
from modules import products
from modules.dot_products import attend, attend_by_pictures

BF16 = torch.bfloat16


def heads(*sizes: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values as they come: [B, heads, L, c] with the channels of all heads side by side."""
    numbers = [sizes[0], *[sizes[1]] * 2]
    made = [torch.randn(2, number, 3, 8, dtype=dtype).transpose(1, 2) for number in numbers]
    return [each.requires_grad_() for each in made]


def operations(q: Tensor, k: Tensor, v: Tensor, p: float = 0.0) -> set[str]:
    """The names of what is computed, also on the way back where there is one."""
    with torch.profiler.profile() as profile:
        found = attend(q, k, v, p)
        if found.requires_grad:
            found.sum().backward()
    return {event.name for event in profile.events()}


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_attend_agrees_with_its_formula_forward_and_backward(dtype: torch.dtype) -> None:
    given = heads(7, 9, dtype=dtype)
    exact = [each.detach().double().requires_grad_() for each in given]
    expected = (exact[0] @ exact[1].transpose(-1, -2) / 8**0.5).softmax(dim=-1) @ exact[2]
    found = attend(*given)
    assert found.dtype == dtype
    weights = torch.randn_like(expected)
    (found * weights.to(dtype)).sum().backward()
    (expected * weights).sum().backward()
    tolerance = {"atol": 5e-2, "rtol": 5e-2} if dtype == BF16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(found.double(), expected, **tolerance)
    for ours, theirs in zip(given, exact, strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, **tolerance)


def test_training_in_bfloat16_keeps_scores_as_long_as_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_fused() -> bool:
        return any("scaled_dot_product" in name for name in operations(*heads(7, 9, dtype=BF16)))

    assert not is_fused()
    monkeypatch.setattr(module, "MOST_KEPT", 2 * 3 * 7 * 9 - 1)
    assert is_fused()


@pytest.mark.parametrize("at_a_time", [1, 2 * 7 * 9, 2**19])
@pytest.mark.parametrize("most_of_a_head", [1, 2**21])
def test_heads_in_parts_give_the_same(
    at_a_time: int, most_of_a_head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [each.detach() for each in heads(7, 9, dtype=BF16)]
    expected = attend(*(each.double() for each in given))
    monkeypatch.setattr(module, "LEAST_OF_ALL", 0)
    monkeypatch.setattr(module, "MOST_AT_A_TIME", at_a_time)
    monkeypatch.setattr(module, "MOST_OF_A_HEAD", most_of_a_head)
    found = attend(*given)
    assert found.dtype == BF16
    torch.testing.assert_close(found.double(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.skipif(products.ONEDNN is None, reason="torch without oneDNN")
def test_large_heads_in_float32_are_multiplied_one_by_one_and_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "SERVED", products.served() | {torch.float32})
    torch.manual_seed(0)
    given = [torch.randn(2, 640, 3, 64).transpose(1, 2).requires_grad_() for _ in range(3)]
    exact = [each.detach().double().requires_grad_() for each in given]
    expected = torch.nn.functional.scaled_dot_product_attention(*exact)
    found = attend_by_pictures(*given, p=0.0)
    weights = torch.randn_like(expected)
    (found * weights.float()).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(given, exact, strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=1e-5, rtol=1e-5)
    assert "aten::bmm" not in operations(*given, p=0.5)


def test_a_compiler_takes_heads_in_parts_as_one_operation_for_all_sizes() -> None:
    graphs = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(attend, backend=graphs, dynamic=True)
    with torch.no_grad():
        for sizes in ((7, 9), (16, 30), (1600, 1700)):
            given = [each.detach() for each in heads(*sizes, dtype=BF16)]
            torch.testing.assert_close(compiled(*given), attend(*given))
    assert graphs.frame_count == 1


def test_float32_without_gradients_is_fused() -> None:
    names = operations(*(each.detach() for each in heads(7, 9)))
    assert any("scaled_dot_product" in name for name in names)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_training_drops_scores_out_by_products(dtype: torch.dtype) -> None:
    """The fused kernel would do it over the whole batch, with masks drawn entry by entry."""
    names = operations(*heads(7, 9, dtype=dtype), p=0.5)
    assert "aten::bmm" in names
    assert not any("scaled_dot_product" in name or "bernoulli" in name for name in names)


def test_dropped_scores_keep_the_mean() -> None:
    torch.manual_seed(0)
    q, k, v = (each.detach().requires_grad_() for each in heads(7, 9, dtype=torch.float32))
    many = torch.stack([attend(q, k, v, 0.3) for _ in range(2000)])
    spread = many.std(dim=0) / len(many) ** 0.5
    assert ((many.mean(dim=0) - attend(q, k, v)).abs() < 5 * spread).all()
