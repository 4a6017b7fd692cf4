import pytest
import torch
from torch import Tensor, nn

from modules import attention as module
from modules.attention import Attention, attend, is_sooner_by_products

BF16 = torch.bfloat16


def heads(*sizes: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values as they come: [B, heads, L, c] with the channels of all heads side by side."""
    numbers = [sizes[0], *[sizes[1]] * 2]
    made = [torch.randn(2, number, 3, 8, dtype=dtype).transpose(1, 2) for number in numbers]
    return [each.requires_grad_() for each in made]


def test_attention_equals_torchs() -> None:
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    queries, tokens = torch.randn(2, 7, 12), torch.randn(2, 5, 12)
    expected = theirs(queries, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(ours(queries, tokens), expected, atol=1e-6, rtol=1e-5)


def test_attention_drops_out_only_in_training() -> None:
    attention, x = Attention(12, 3, dropout=0.5), torch.randn(1, 7, 12)
    assert not torch.equal(attention(x, x), attention(x, x))
    attention.eval()
    assert torch.equal(attention(x, x), attention(x, x))


@pytest.mark.parametrize("nhead", [-1, 0, 5])
def test_heads_must_divide_the_channels(nhead: int) -> None:
    with pytest.raises(ValueError, match="nhead: expected a divisor of the 12 channels"):
        Attention(12, nhead)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_attend_agrees_with_its_formula_forward_and_backward(dtype: torch.dtype) -> None:
    given = heads(7, 9, dtype=dtype)
    exact = [each.detach().double().requires_grad_() for each in given]
    assert is_sooner_by_products(*given[:2], p=0) == (dtype == BF16)
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


def test_whole_scores_are_kept_only_for_gradients_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, _ = heads(7, 9, dtype=BF16)
    assert is_sooner_by_products(q, k, p=0)
    with torch.no_grad():
        assert not is_sooner_by_products(q, k, p=0)
    monkeypatch.setattr(module, "MOST_SCORES", 2 * 3 * 7 * 9 - 1)
    assert not is_sooner_by_products(q, k, p=0)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_training_drops_scores_out_by_products(dtype: torch.dtype) -> None:
    """The fused kernel would do it over the whole batch, with masks drawn entry by entry."""
    q, k, v = heads(7, 9, dtype=dtype)
    with torch.profiler.profile() as profile:
        attend(q, k, v, 0.5).sum().backward()
    names = {event.name for event in profile.events()}
    assert "aten::bmm" in names
    assert not any("scaled_dot_product" in name or "bernoulli" in name for name in names)


def test_dropped_scores_keep_the_mean() -> None:
    torch.manual_seed(0)
    q, k, v = (each.detach().requires_grad_() for each in heads(7, 9, dtype=torch.float32))
    many = torch.stack([attend(q, k, v, 0.3) for _ in range(2000)])
    spread = many.std(dim=0) / len(many) ** 0.5
    assert ((many.mean(dim=0) - attend(q, k, v)).abs() < 5 * spread).all()


def test_bfloat16_training_drops_out() -> None:
    attention, x = Attention(12, 3, dropout=0.5).to(BF16), torch.randn(1, 7, 12, dtype=BF16)
    assert not torch.equal(attention(x, x), attention(x, x))
    attention.eval()
    assert torch.equal(attention(x, x), attention(x, x))


def test_autocast_softmax_stays_in_the_products_number_format() -> None:
    attention, x = Attention(12, 3), torch.randn(1, 7, 12)
    with torch.autocast("cpu", BF16):
        found = attention(x, x)
    assert found.dtype == BF16
    torch.testing.assert_close(found.float(), attention(x, x), atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("with_pixels", [True, False])
def test_projected_tokens_are_seen_as_if_they_were_given(with_pixels: bool) -> None:
    attention = Attention(12, 3)
    pixels, tokens = torch.randn(2, 7, 12), torch.randn(2, 5, 12)
    seen = torch.cat((pixels, tokens), dim=1) if with_pixels else tokens
    found = attention(pixels, pixels if with_pixels else None, projected=attention.project(tokens))
    torch.testing.assert_close(found, attention(pixels, seen))
