"""Compiled blocks: each kind once, for blocks alike and for pictures of any size."""

from collections.abc import Callable
from typing import Any

import torch
import torch.fx.experimental._config as shapes
from torch import Tensor, nn

MOST_KINDS = 64  # of one block: its widths, with and without skip connection, control, adapters, gradients


def compile_blocks(network: nn.Module, **settings: Any) -> None:
    """Compile each of a network's `shard_units()`, in place: names and references stay valid.

    Blocks that are alike share their code, and it serves all heights and widths from the first on. Adapters
    may be attached and detached later. settings: of torch.compile.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_KINDS)
    torch._dynamo.config.skip_nnmodule_hook_guards = False  # adapters are hooks
    shapes.use_duck_shape = False  # else a square picture's code counts on height and width being equal
    for unit in network.shard_units():  # type: ignore[operator]
        unit.forward = sized(torch.compile(unit.forward, **settings))


def sized(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and the compiler knows that height and width of what is given may be others the next time."""

    def marked(*arguments: Any) -> Any:
        for argument in arguments:
            for tensor in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(tensor, Tensor) and tensor.ndim == 4:
                    for dimension in (2, 3):
                        torch._dynamo.maybe_mark_dynamic(tensor, dimension)
        return forward(*arguments)

    return marked
