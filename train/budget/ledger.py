"""Bytes and operations of tensors as they come and go, on the meta device (or on a CPU, to check that)."""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

ASKED = torch.ops.aten._local_scalar_dense.default
CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward


class Ledger(TorchDispatchMode):
    """Counts, within its context, what every operation on `device` allocates and when that is freed.

    Gradients of `learning` are kept apart from all else that lives for a while ("working": activations,
    temporary results, casts). peak_working: most bytes of these at once, without gradients; peak: with the
    gradients that there were at that time; peak_frozen: while frozen helpers run. operations: two for each
    multiplication with addition, by phase: forward, frozen (`frozen` networks, and whatever passes no
    gradients), backward, recomputed.
    A number that is asked of a meta tensor is 1, a truth value true.
    """

    def __init__(
        self,
        device: torch.device,
        learning: Iterable[nn.Parameter] = (),
        frozen: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.device = device.type
        self.working = self.gradients = 0
        self.peak_working = self.peak = self.peak_frozen = 0
        self.operations: Counter[str] = Counter()  # by phase
        self.in_backward, self.helpers = False, 0  # helpers: frozen networks that are running now
        self._known: dict[Any, tuple[Any, int]] = {}  # calls, whose results' sizes take long to work out
        self._sizes: dict[int, int] = {}  # of storages, by their number, and whether they are gradients
        self._is_gradient: set[int] = set()
        self._hooks = [p.register_post_accumulate_grad_hook(self._take_gradient) for p in learning]
        for network in frozen:
            self._hooks.append(network.register_forward_pre_hook(lambda *_: self._help(1)))
            self._hooks.append(network.register_forward_hook(lambda *_: self._help(-1)))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is ASKED and args[0].device.type == "meta":
            return True if args[0].dtype == torch.bool else 1
        if not allocates(func):
            return func(*args, **kwargs)
        leaves = tree_leaves((args, kwargs))
        key = (func, *map(signature, leaves)) if self.device == "meta" else None
        if key in self._known:
            made, counted = self._known[key]
            found = tree_map_only(Like, Like.make, made)
        else:
            found = func(*args, **kwargs)
            counted = operations(func._overloadpacket, args, kwargs, found)
            given = {storage_of(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
            if any(storage_of(t) in given for t in tree_leaves(found) if isinstance(t, Tensor)):
                return found  # a view that does not say that it is one
            if key is not None:
                self._known[key] = tree_map_only(Tensor, Like.of, found), counted
        self.operations[self._phase()] += counted
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor) and leaf.device.type == self.device:
                self._note(leaf.untyped_storage())
        return found

    @contextmanager
    def backward(self) -> Iterator[None]:
        """What is computed within the context is a backward pass."""
        self.in_backward = True
        try:
            yield
        finally:
            self.in_backward = False

    def _help(self, number: int) -> None:
        self.helpers += number

    def _phase(self) -> str:
        if self.in_backward:  # the engine computes without gradients, what is recomputed asks for them
            return "recomputed" if torch.is_grad_enabled() else "backward"
        return "forward" if torch.is_grad_enabled() and not self.helpers else "frozen"

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = size = storage.nbytes()
        self.working += size
        self.peak_working = max(self.peak_working, self.working)
        self.peak = max(self.peak, self.working + self.gradients)
        if self.helpers or not self.operations["forward"]:
            self.peak_frozen = max(self.peak_frozen, self.working)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        size = self._sizes.pop(key)
        if key in self._is_gradient:
            self._is_gradient.discard(key)
            self.gradients -= size
        else:
            self.working -= size

    def _take_gradient(self, parameter: nn.Parameter) -> None:
        assert parameter.grad is not None  # the hook comes after it
        key = parameter.grad.untyped_storage()._cdata
        if key in self._sizes and key not in self._is_gradient:
            self._is_gradient.add(key)
            self.working -= self._sizes[key]
            self.gradients += self._sizes[key]


def operations(packet: Any, args: Any, kwargs: Any, found: Any) -> int:
    """Of one call: two for each multiplication with addition, as PyTorch's own counter knows them.

    Except for the backward pass of convolutions, of which that one forgets that they may be depthwise.
    """
    if packet is CONVOLUTION_BACKWARD:
        weight, is_transposed, wanted = args[2], args[7], args[10]
        pixels = args[1 if is_transposed else 0].numel()
        return int(2 * pixels * (weight.numel() // weight.shape[0]) * sum(wanted[:2]))
    if packet not in flop_registry:
        return 0
    return int(flop_registry[packet](*args, **kwargs, out_val=found))


@cache
def allocates(func: Any) -> bool:
    """Whether a call makes new tensors, not only views of its arguments or changes in them."""
    return any(result.alias_info is None for result in func._schema.returns)


def storage_of(tensor: Tensor) -> int:
    """A number that tensors share which share memory."""
    return tensor.untyped_storage()._cdata


def signature(argument: Any) -> Any:
    """What a call's result depends on, but for contents."""
    if isinstance(argument, Tensor):
        return Like.of(argument)
    return type(argument), argument if argument.__hash__ else str(argument)


@dataclass(frozen=True)
class Like:
    """All of a tensor but its contents."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> "Like":
        """Of this tensor."""
        return cls(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

    def make(self) -> Tensor:
        """A new one."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
