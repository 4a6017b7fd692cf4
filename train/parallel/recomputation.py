"""Activation checkpointing: what a block computes in between is computed again in the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from modules.products import ONEDNN
from train.parallel.batchnorm import statistics_kept

Contexts = tuple[AbstractContextManager, AbstractContextManager]
aten = torch.ops.aten
KEPT = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    *([] if ONEDNN is None else [ONEDNN.default]),
}


def recomputed(unit: nn.Module, selective: bool) -> Callable[..., Any]:
    """The unit's forward, which keeps its inputs and is repeated in the backward pass.

    selective: it keeps the results of products and attention, too; only what lies between them is repeated.
    A unit that changes results in place keeps its inputs only: what it had kept would be changed, too.
    """
    selective = selective and not any(getattr(part, "inplace", False) for part in unit.modules())
    contexts = _products_and_again if selective else _first_and_again
    forward = partial(checkpoint, unit.forward, use_reentrant=False, context_fn=partial(contexts, unit))
    return partial(_casting_anew, forward) if selective else forward


def _casting_anew(forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call without autocast's memory of weights that it has cast before in the same pass, in a repeated unit.

    The repetition in the backward pass does not have that memory, and must do the same operations.
    """
    remembers = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        return forward(*arguments, **keywords)
    finally:
        torch.set_autocast_cache_enabled(remembers)


def _first_and_again(unit: nn.Module) -> Contexts:
    # A BatchNorm would follow a batch that is seen twice with twice the momentum.
    return nullcontext(), statistics_kept(unit)


def _products_and_again(unit: nn.Module) -> Contexts:
    first, again = create_selective_checkpoint_contexts(_policy)
    return first, _both(statistics_kept(unit), again)  # whose own operations it has never seen


@contextmanager
def _both(one: AbstractContextManager, other: AbstractContextManager) -> Iterator[None]:
    with one, other:
        yield


def _policy(context: Any, operation: Any, *arguments: Any, **keywords: Any) -> CheckpointPolicy:
    """Keep what takes long to compute; a depthwise convolution is as quick as what lies around it."""
    is_kept = operation in KEPT
    if operation is aten.convolution.default:
        is_kept = arguments[8] == 1  # groups
    return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE
