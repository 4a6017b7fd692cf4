"""Bytes and operations of tensors as they come and go, on the meta device (or on a CPU, to check that)."""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
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
    A number that is asked of a meta tensor is 1, a truth value true. work: sums up all calls since it was
    last set: the same for the same calls with tensors alike.
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
        self.work = 0
        self._repeated: Repeated | None = None
        self._times: dict[int, int] = {}  # of storages that stand for several
        self._weight_times: dict[int, int] = {}  # of parameters, by their number
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
        leaves = flat((args, kwargs))
        key = (func, *map(signature, leaves)) if self.device == "meta" else None
        self.work = hash((self.work, key, *[isinstance(t, Tensor) and t.requires_grad for t in leaves]))
        if key in self._known:
            made, counted = self._known[key]
            found = again(made) if isinstance(made, Like) else tuple(map(again, made))
        else:
            found = func(*args, **kwargs)
            counted = operations(func._overloadpacket, args, kwargs, found)
            given = {storage_of(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
            if any(storage_of(t) in given for t in flat(found) if isinstance(t, Tensor)):
                return found  # a view that does not say that it is one
            if (
                key is not None
                and isinstance(found, Tensor | tuple)
                and not any(map(has_contents, flat(found)))
            ):
                self._known[key] = (
                    tuple(map(like, found)) if isinstance(found, tuple) else like(found),
                    counted,
                )
        if counted:
            self.operations[self._phase()] += counted
        for leaf in flat(found):
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

    def begin_repeated(self, times: int) -> None:
        """What comes until `end_repeated` comes so many times in a row, and is computed once."""
        assert self._repeated is None
        peaks = self.peak_working, self.peak, self.peak_frozen
        self.peak_working = self.peak = self.peak_frozen = 0
        self._repeated = Repeated(times, self.working, self.gradients, *peaks, self.operations.copy())

    def end_repeated(self) -> None:
        """See there."""
        assert self._repeated is not None
        begun, self._repeated = self._repeated, None
        others = begun.times - 1
        working = others * (self.working - begun.working)
        gradients = others * (self.gradients - begun.gradients)
        self.working += working
        self.gradients += gradients
        # Each time begins higher or lower than the one before by the same: the most is in the first or last.
        self.peak_working = max(begun.peak_working, self.peak_working, self.peak_working + working)
        self.peak = max(begun.peak, self.peak, self.peak + working + gradients)
        if self.peak_frozen:
            self.peak_frozen += max(working, 0)
        self.peak_frozen = max(begun.peak_frozen, self.peak_frozen)
        for phase, count in self.operations.items():
            self.operations[phase] += others * (count - begun.operations[phase])

    def stands_for(self, times: int, weight: Tensor, cast: Tensor) -> None:
        """A weight of what is repeated and its cast, which is kept beyond it, are there so many times."""
        self._weight_times[id(weight)] = times
        self._note_times(cast, times)
        if cast.requires_grad:
            cast.register_hook(lambda gradient: self._note_times(gradient, times))

    def _note_times(self, tensor: Tensor, times: int) -> None:
        self._times[storage_of(tensor)] = times

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
        size, times = self._sizes.pop(key), self._times.pop(key, 1)
        if self._repeated is None:
            size *= times
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
            times = 1 if self._repeated else self._weight_times.get(id(parameter), 1)
            self.gradients += self._sizes[key] * times
            self.peak = max(self.peak, self.working + self.gradients)


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


@dataclass(frozen=True)
class Repeated:
    """How things stood when something began that is computed once in the place of several times."""

    times: int
    working: int
    gradients: int
    peak_working: int
    peak: int
    peak_frozen: int
    operations: Counter[str]


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
        return like(argument)
    return type(argument), argument if argument.__hash__ else str(argument)


class Like(NamedTuple):
    """All of a tensor but its contents."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def is_meta(leaf: Any) -> bool:
    """Whether a tensor without contents."""
    return isinstance(leaf, Tensor) and leaf.device.type == "meta"


def has_contents(leaf: Any) -> bool:
    """Whether a tensor that holds numbers, which another one like it would not."""
    return isinstance(leaf, Tensor) and leaf.device.type != "meta"


def like(found: Any) -> Any:
    """What a tensor is like; other things as they are."""
    if not isinstance(found, Tensor):
        return found
    return Like(found.shape, found.stride(), found.dtype, found.device)


def again(made: Any) -> Any:
    """A new tensor like that; other things as they are."""
    if not isinstance(made, Like):
        return made
    return torch.empty_strided(made.shape, made.stride, dtype=made.dtype, device=made.device)


def flat(nested: Any) -> list[Any]:
    """All that is in tuples, lists and dicts within each other."""
    if isinstance(nested, Mapping):
        nested = list(nested.values())
    elif not isinstance(nested, tuple | list):
        return [nested]
    found: list[Any] = []
    for each in nested:
        if isinstance(each, tuple | list | Mapping):
            found.extend(flat(each))
        else:
            found.append(each)
    return found
