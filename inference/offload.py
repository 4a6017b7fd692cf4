"""Weights that lie elsewhere while their network is not in use, and come to the device when it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inference.side_stream import Buffers
from modules.devices import copies_beside
from modules.weights.lazy import LazyTensor

ALIGNMENT = 256  # bytes; kernels want the first number of a tensor at such a place


class Place(NamedTuple):
    """Where a tensor begins in a flat buffer, in bytes, and what it is."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def of(self, buffer: Tensor) -> Tensor:
        """The tensor, a view into the buffer."""
        count = torch.Size(self.shape).numel() * self.dtype.itemsize
        return buffer[self.start : self.start + count].view(self.dtype).view(self.shape)


class InMemory:
    """Tensors in the CPU's memory, side by side in one buffer: one copy brings them all, and leaves no holes.

    pinned: in memory that a GPU reads by itself, which is several times faster.
    """

    def __init__(self, state: Mapping[str, LazyTensor], pinned: bool) -> None:
        self.places: dict[str, Place] = {}
        end = 0
        for name, tensor in state.items():
            self.places[name] = Place(end, tensor.shape, tensor.dtype)
            end += -(-tensor.num_bytes // ALIGNMENT) * ALIGNMENT
        self.buffer = torch.empty(end, dtype=torch.uint8, pin_memory=pinned)
        self.absent = self.in_buffer(self.buffer)
        for name, tensor in state.items():
            self.absent[name].copy_(tensor.read())

    def in_buffer(self, buffer: Tensor) -> dict[str, Tensor]:
        """The tensors as they lie in a copy of the buffer."""
        return {name: place.of(buffer) for name, place in self.places.items()}

    def fetch(self, device: torch.device) -> dict[str, Tensor]:
        """A copy of all on the device."""
        return self.in_buffer(self.buffer.to(device, non_blocking=copies_beside(device), copy=True))


class InFiles:
    """Tensors that are read from their files each time: what a CPU, with no other memory, can leave out.

    `absent` stands for them meanwhile: of their shapes, a few bytes large, and not a number, so that nobody
    computes with it unnoticed.
    """

    def __init__(self, state: Mapping[str, LazyTensor]) -> None:
        self.state = dict(state)
        self.absent = {name: stand_in(tensor) for name, tensor in state.items()}

    def fetch(self, device: torch.device) -> dict[str, Tensor]:
        """All of them, read anew."""
        return {name: tensor.read().to(device) for name, tensor in self.state.items()}


Home = InMemory | InFiles


def stand_in(tensor: LazyTensor) -> Tensor:
    """A tensor of that shape and number format without memory for its numbers."""
    value = float("nan") if tensor.dtype.is_floating_point else 0
    return torch.full((), value, dtype=tensor.dtype).expand(tensor.shape)


class Offloaded:
    """A network whose weights come to the device while it is lent: all at once, or block by block.

    network: built, with any tensors or none (meta) under the names of `state`, which are its weights; what is
    not in it stays. device: where it computes. in_files: let them wait in the files that state reads, in the
    place of the CPU's memory. units: blocks that come one by one, when they are called; the next one is
    copied meanwhile where the device can do both at once. None: all at once.
    """

    @torch.inference_mode(False)  # wherever they are loaded, weights are to be of the ordinary kind
    def __init__(
        self,
        network: nn.Module,
        state: Mapping[str, LazyTensor],
        device: torch.device,
        *,
        in_files: bool,
        units: Sequence[nn.Module] = (),
    ) -> None:
        self.network, self.device, self.units = network, device, list(units)
        prefixes = {module: name + "." for name, module in network.named_modules()}
        groups: list[dict[str, LazyTensor]] = []
        rest = dict(state)
        for unit in self.units:
            groups.append({name: rest.pop(name) for name in state if name.startswith(prefixes[unit])})
        pinned = device.type == "cuda"
        homes = [InFiles(group) if in_files else InMemory(group, pinned) for group in (rest, *groups)]
        self.rest, self.homes = homes[0], homes[1:]
        absent = {name: tensor for home in homes for name, tensor in home.absent.items()}
        network.load_state_dict(absent, strict=False, assign=True)
        self._users = 0

    @contextmanager
    def lent(self) -> Iterator[None]:
        """With the weights on the device; of blocks, when they are called."""
        self._users += 1
        try:
            if self._users > 1:
                yield
                return
            with ExitStack() as stack:
                stack.callback(self._put, self.rest.absent)
                self._put(self.rest.fetch(self.device))
                if self.units:
                    stack.enter_context(Blocks(self).running())
                yield
        finally:
            self._users -= 1
            if not self._users and self.device.type != "cpu":
                torch.accelerator.empty_cache()  # another network's weights fit in no holes of this one's

    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            module, _, last = name.rpartition(".")
            getattr(self.network.get_submodule(module), last).data = tensor


class Blocks:
    """The units of a network, of which one is on the device, and the next one on its way."""

    def __init__(self, owner: Offloaded) -> None:
        self.owner = owner
        self._order: list[int] = []  # in which they ran the last time
        self._ran: list[int] = []  # this time
        self._buffers: Buffers | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """With hooks that bring each unit when it is called."""
        owner = self.owner
        with ExitStack() as stack:
            if owner.device.type == "cuda":
                sources = [home.buffer for home in owner.homes if isinstance(home, InMemory)]
                self._buffers = Buffers(sources, owner.device)
                stack.callback(self._buffers.close)
            for home in owner.homes:
                stack.callback(owner._put, home.absent)  # also of one that raised an error
            stack.callback(owner.network.register_forward_pre_hook(self._begin).remove)
            for number, unit in enumerate(owner.units):
                stack.callback(unit.register_forward_pre_hook(self._bring(number)).remove)
                stack.callback(unit.register_forward_hook(self._send_away(number)).remove)
            yield

    def _begin(self, network: nn.Module, inputs: Any) -> None:
        if self._ran:
            self._order, self._ran = self._ran, []

    def _bring(self, number: int) -> Callable[..., None]:
        def bring(unit: nn.Module, inputs: Any) -> None:
            owner, home = self.owner, self.owner.homes[number]
            self._ran.append(number)
            if self._buffers is None:
                owner._put(home.fetch(owner.device))
            else:
                assert isinstance(home, InMemory)  # a GPU's weights do not wait in files
                owner._put(home.in_buffer(self._buffers.take(number)))
                self._buffers.start(self._next())

        return bring

    def _send_away(self, number: int) -> Callable[..., None]:
        def send_away(unit: nn.Module, inputs: Any, output: Any) -> None:
            self.owner._put(self.owner.homes[number].absent)
            if self._buffers is not None:
                self._buffers.done()

        return send_away

    def _next(self) -> int:
        """Which unit will probably be called next: as after the present one the last time, else in order."""
        place, number = len(self._ran), self._ran[-1]
        if place <= len(self._order) and self._order[place - 1] == number:
            return self._order[place % len(self._order)]
        return (number + 1) % len(self.owner.units)
