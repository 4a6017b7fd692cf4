import pytest
import torch
from torch import nn

from modules.attention import Attention

BF16 = torch.bfloat16


def test_attention_equals_torchs() -> None:
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    queries, tokens = torch.randn(2, 7, 12), torch.randn(2, 5, 12)
    expected = theirs(queries, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(ours(queries, ours.project(tokens)), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_attention_drops_out_only_in_training(dtype: torch.dtype) -> None:
    attention, x = Attention(12, 3, dropout=0.5).to(dtype), torch.randn(1, 7, 12, dtype=dtype)
    given = attention.project(x)
    assert not torch.equal(attention(x, given), attention(x, given))
    attention.eval()
    assert torch.equal(attention(x, given), attention(x, given))


@pytest.mark.parametrize("nhead", [-1, 0, 5])
def test_heads_must_divide_the_channels(nhead: int) -> None:
    with pytest.raises(ValueError, match="nhead: expected a divisor of the 12 channels"):
        Attention(12, nhead)


def test_autocast_softmax_stays_in_the_products_number_format() -> None:
    attention, x = Attention(12, 3), torch.randn(1, 7, 12)
    with torch.autocast("cpu", BF16):
        found = attention(x, attention.project(x))
    assert found.dtype == BF16
    expected = attention(x, attention.project(x))
    torch.testing.assert_close(found.float(), expected, atol=3e-2, rtol=3e-2)


def test_pixels_are_seen_before_the_tokens_given() -> None:
    attention, pixels, tokens = Attention(12, 3), torch.randn(2, 7, 12), torch.randn(2, 5, 12)
    found = attention(pixels, attention.project(tokens), self_attn=True)
    both = attention.project(torch.cat((pixels, tokens), dim=1))
    torch.testing.assert_close(found, attention(pixels, both))


@pytest.mark.parametrize("name", ["to_q", "to_k", "to_v"])
def test_each_projection_may_be_watched_or_replaced(name: str) -> None:
    attention, pixels = Attention(12, 3), torch.randn(2, 7, 12)

    def found() -> torch.Tensor:
        return attention(pixels, attention.project(pixels), self_attn=True)

    expected = found()
    hook = attention.get_submodule(name).register_forward_hook(lambda _, __, made: -made)
    assert not torch.allclose(found(), expected)
    hook.remove()
    torch.testing.assert_close(found(), expected)
    setattr(attention, name, nn.Linear(12, 12))
    assert not torch.allclose(found(), expected)
