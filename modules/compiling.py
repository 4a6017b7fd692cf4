"""Compiled networks: by blocks, each kind once, or whole; for pictures of any size."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.fx.experimental._config as shapes
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

MOST_KINDS = 64  # of one block: its widths, with and without skip connection, control, adapters, gradients


def compile_blocks(network: nn.Module, **settings: Any) -> None:
    """Compile each of a network's `shard_units()`, in place: names and references stay valid.

    Blocks that are alike share their code, and it serves all heights and widths from the first on. Adapters
    may be attached and detached later. settings: of torch.compile. ValueError where there is no compiler.
    """
    make_ready(settings)
    for unit in network.shard_units():  # type: ignore[operator]
        unit.forward = sized(torch.compile(unit.forward, **settings))


def compile_whole(network: nn.Module, **settings: Any) -> None:
    """Compile a network in one piece, in place, which CUDA replays as one graph; without gradients.

    It takes longer than blocks do, and once more for each set of adapters. Weights have to stay where they
    are. What is replayed writes its result to the same place each time, so callers are given a copy
    (docs.pytorch.org, "CUDAGraph Trees"). settings, errors: as above.
    """
    make_ready(settings)
    compiled = torch.compile(network.forward, mode="reduce-overhead", **settings)

    def replayed(*arguments: Any, **keywords: Any) -> Tensor:
        mark_sizes(tree_leaves((arguments, keywords)))
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*arguments, **keywords).clone()

    network.forward = replayed


def make_ready(settings: dict[str, Any]) -> None:
    """Set the compiler up for networks of blocks; ValueError where it has no C++ compiler, which it needs."""
    if "backend" not in settings:  # which is torch's own then
        check_compiler()
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_KINDS)
    torch._dynamo.config.skip_nnmodule_hook_guards = False  # adapters are hooks
    shapes.use_duck_shape = False  # else a square picture's code counts on height and width being equal


def check_compiler() -> None:
    """ValueError where torch finds no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ValueError(
            "compile: no C++ compiler was found (g++, or the one that CXX names); install one, or leave "
            "compile out"
        ) from None


def sized(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and the compiler knows that height and width of what is given may be others the next time."""

    def marked(*arguments: Any) -> Any:
        for argument in arguments:
            mark_sizes(argument if isinstance(argument, tuple) else (argument,))
        return forward(*arguments)

    return marked


def mark_sizes(values: Iterable[Any]) -> None:
    """Tell the compiler so of the pictures [B, C, H, W] among the values."""
    for value in values:
        if isinstance(value, Tensor) and value.ndim == 4:
            for dimension in (2, 3):
                torch._dynamo.maybe_mark_dynamic(value, dimension)
