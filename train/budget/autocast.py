"""How CUDA computes under autocast and in attention, for tensors on the meta device, which know neither.

Number formats decide what is kept for the backward pass, so they are followed operation by operation, as
PyTorch's "Automatic Mixed Precision: CUDA Ops" lists them; as there, the casts of weights that learn are kept
until autocast ends. Attention is that of fused kernels, which keep no matrix of scores.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from train.budget.ledger import flat, is_meta

LOWER = {"linear", "conv1d", "conv2d", "conv_transpose2d", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm"}
LOWER |= {"addmm", "baddbmm", "einsum", "prelu", "scaled_dot_product_attention"}
FLOAT32 = {
    "layer_norm",
    "group_norm",
    "softmax",
    "log_softmax",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "pow",
}
FLOAT32 |= {"__pow__", "__rpow__", "norm", "exp", "log", "rsqrt", "reciprocal", "cumsum", "cumprod", "prod"}
FLOAT32 |= {"normalize", "softplus", "cosine_similarity", "cdist", "dist"}
WIDEST = {"addcmul", "addcdiv", "cat", "stack", "dot", "cross", "bilinear", "tensordot"}
CAST = LOWER | FLOAT32 | WIDEST | {"sum"}
ATTENTION, INDEX, PUT = "scaled_dot_product_attention", "__getitem__", "__setitem__"


class OnMeta(TorchFunctionMode):
    """Within its context meta tensors are computed with as CUDA tensors would be.

    dtype: of products under autocast; None: no autocast.
    """

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.dtype, self.keeps = dtype, True
        self._casts: dict[int, tuple[Tensor, Tensor]] = {}

    def begin(self) -> None:
        """From here on casts of weights are kept."""
        self.keeps = True

    def casts(self) -> list[tuple[Tensor, Tensor]]:
        """Weights, and their casts that are kept."""
        return list(self._casts.values())

    def end_of_forward(self) -> None:
        """From here on casts are made anew at each use, as in what is recomputed."""
        self._casts.clear()
        self.keeps = False

    def inside(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The same forward, also when it is recomputed: a backward pass runs outside of all such modes."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with nullcontext() if self.keeps else self:
                return forward(*args, **kwargs)

        return wrapped

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in (INDEX, PUT) and is_mask(args[1]):
            rows = torch.zeros(len(args[1]), dtype=torch.long, device="meta")  # as if all were chosen
            return func(args[0], rows, *args[2:], **kwargs)
        if self.dtype is not None and name in CAST and any(is_meta(leaf) for leaf in flat((args, kwargs))):
            args, kwargs = self._cast(name, args, kwargs)
        if name == ATTENTION and args[0].device.type == "meta":
            return attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _cast(self, name: str, args: Any, kwargs: Any) -> Any:
        if name in LOWER:
            return mapped(self._lower, (args, kwargs))
        if name == "sum" and kwargs.get("dtype") is None:
            return args, {**kwargs, "dtype": torch.float32} if is_narrow(args[0]) else kwargs
        if name in FLOAT32:
            return mapped(lambda t: t.float() if is_narrow(t) else t, (args, kwargs))
        if name in WIDEST:
            wide = any(is_meta(leaf) and leaf.dtype == torch.float32 for leaf in flat((args, kwargs)))
            if wide:
                return mapped(lambda t: t.float() if is_narrow(t) else t, (args, kwargs))
        return args, kwargs

    def _lower(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32 or tensor.device.type != "meta" or self.dtype is None:
            return tensor
        is_weight = tensor.requires_grad and tensor.is_leaf and not tensor._is_view()
        if not (self.keeps and is_weight and torch.is_autocast_cache_enabled()):
            return tensor.to(self.dtype)
        if id(tensor) not in self._casts:
            with torch.enable_grad():  # as there, for later uses may need it
                self._casts[id(tensor)] = tensor, tensor.to(self.dtype)
        return self._casts[id(tensor)][1]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> Tensor:
    """Attention of [B, heads, L, c] as a fused kernel computes it: flash, or for float32 memory-efficient."""
    if query.dtype == torch.float32 or attn_mask is not None:
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, None, query.requires_grad, dropout_p, is_causal)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal)[0]


@contextmanager
def as_on_cuda(dtype: torch.dtype | None) -> Iterator[OnMeta]:
    """Compute on the meta device as on CUDA; `torch.autocast` of that device can be switched off and on."""
    mode, real = OnMeta(dtype), torch.autocast

    def autocast(
        device_type: str, dtype: torch.dtype | None = None, enabled: bool = True, **other: Any
    ) -> Any:
        if device_type != "meta":
            return real(device_type, dtype, enabled, **other)
        return nullcontext() if enabled else mode_off(mode)

    torch.autocast = autocast  # type: ignore[assignment,misc]
    try:
        with mode:
            yield mode
    finally:
        torch.autocast = real  # type: ignore[misc]


@contextmanager
def mode_off(mode: OnMeta) -> Iterator[None]:
    """Without autocast within the context."""
    dtype, mode.dtype = mode.dtype, None
    try:
        yield
    finally:
        mode.dtype = dtype


def is_mask(index: Any) -> bool:
    """Whether a choice of rows whose number only the contents would tell."""
    return isinstance(index, Tensor) and index.dtype == torch.bool and index.device.type == "meta"


def is_narrow(tensor: Tensor) -> bool:
    """Whether a meta tensor of 16 bits."""
    return tensor.device.type == "meta" and tensor.dtype in (torch.bfloat16, torch.float16)


def mapped(change: Callable[[Tensor], Tensor], nested: Any) -> Any:
    """The same arguments with tensors changed."""
    if isinstance(nested, Tensor):
        return change(nested)
    if isinstance(nested, dict):
        return {key: mapped(change, value) for key, value in nested.items()}
    if type(nested) in (tuple, list):
        return type(nested)(mapped(change, value) for value in nested)
    return nested
