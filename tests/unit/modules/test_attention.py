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
