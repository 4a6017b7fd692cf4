"""Scaled dot product attention, computed in the way that is soonest.

PyTorch's fused kernel is, but for three cases on a CPU: it works on small products there, which in bf16 reach
half the speed of large ones and on the way back less, and it cannot drop out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.dropout import dropout
from modules.products import learns, product

MOST_KEPT = 2**26  # scores for the backward pass: 128 MiB in bf16; beyond, they are computed anew
MOST_AT_A_TIME = 2**22  # scores: 8 MiB in bf16; more hold up no core, and fit no cache
LEAST_OF_ALL = 2**16  # scores; for fewer, the fused kernel is quicker
MOST_OF_A_HEAD = 2**21  # scores; beyond, the fused kernel is as quick


def attend(q: Tensor, k: Tensor, v: Tensor, p: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(c)) v ("Attention Is All You Need", eq. 1).

    q: [B, heads, L, c]; k, v: [B, heads, N, c]; returns a tensor like q. p: the chance that a pixel does not
    look at a token.
    """
    if q.device.type == "cpu":
        scores, is_narrow = q.shape[:-1].numel() * k.shape[-2], q.dtype == torch.bfloat16
        if torch.is_grad_enabled() and any(each.requires_grad for each in (q, k, v)):
            if p > 0 or (is_narrow and scores <= MOST_KEPT):
                return attend_by_pictures(q, k, v, p)
        elif is_narrow and p == 0:
            # A compiler takes it as one operation, so that its code serves all sizes.
            return (opaque if torch.compiler.is_compiling() else attend_by_heads)(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=p)


def attend_by_pictures(q: Tensor, k: Tensor, v: Tensor, p: float) -> Tensor:
    """The same for the way back: scores of a whole batch fit no cache, and their memory is new each time.

    In float32 a head at a time, where oneDNN is to multiply: it does so for two matrices.
    """
    is_by_head = learns(q[0, 0], k[0, 0])
    parts = [q * q.shape[-1] ** -0.5, k, v]
    if is_by_head:
        parts = [part.flatten(0, 1).contiguous() for part in parts]
    found = []
    for one_q, one_k, one_v in zip(*parts, strict=True):
        weights = times(one_q, one_k).softmax(dim=-1).to(q.dtype)
        found.append(times(dropout(weights, p), one_v.transpose(-1, -2)))
    return torch.stack(found).view(q.shape)


def times(x: Tensor, y: Tensor) -> Tensor:
    """x y^T for x [..., L, c] and y [..., N, c]."""
    return product(x, y) if y.ndim == 2 else x @ y.transpose(-1, -2)


def attend_by_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same without gradients and dropout, a few heads at a time."""
    scores = q.shape[-2] * k.shape[-2]
    if scores > MOST_OF_A_HEAD or scores * q.shape[:2].numel() < LEAST_OF_ALL:
        return F.scaled_dot_product_attention(q, k, v)
    together = max(1, MOST_AT_A_TIME // scores)
    queries, keys, values = (each.flatten(0, 1) for each in (q * q.shape[-1] ** -0.5, k, v))
    found = torch.empty_like(queries, memory_format=torch.contiguous_format)
    parts = (each.split(together) for each in (queries, keys, values, found))
    for some_queries, some_keys, some_values, some_found in zip(*parts, strict=True):
        weights = torch.bmm(some_queries, some_keys.transpose(1, 2)).softmax(dim=-1).to(v.dtype)
        torch.bmm(weights, some_values, out=some_found)
    return found.view(q.shape)


@torch.library.custom_op("kaskade::attend_by_heads", mutates_args=())
def opaque(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same as an operation that compilers do not look into."""
    return attend_by_heads(q, k, v).contiguous()


@opaque.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape)
