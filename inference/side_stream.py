"""Copies to a GPU beside its computing: two buffers that take turns."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Buffers:
    """Memory on a CUDA device for two blocks: the one that computes, and the next, which is being copied.

    sources: the blocks' weights, flat, in pinned memory. A copy waits until what computed with the buffer
    before is done, and `take` lets the device, not the program, wait for the copy.
    """

    def __init__(self, sources: Sequence[Tensor], device: torch.device) -> None:
        self.sources, self.device = sources, device
        self.stream = torch.cuda.Stream(device)
        most = max(len(source) for source in sources)
        self._buffers = [torch.empty(most, dtype=torch.uint8, device=device) for _ in range(2)]
        present = torch.cuda.current_stream(device)
        # The memory may have belonged to something that is still being computed.
        self._free = [present.record_event() for _ in range(2)]
        self._used = 0  # which buffer computes
        self._copied: int | None = None  # which source the other one holds, or will hold
        self._ready: torch.cuda.Event | None = None

    def start(self, number: int) -> None:
        """Begin to copy a source into the buffer that does not compute."""
        other = 1 - self._used
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(self._free[other])
            source = self.sources[number]
            self._buffers[other][: len(source)].copy_(source, non_blocking=True)
            self._ready = self.stream.record_event()
        self._copied = number

    def take(self, number: int) -> Tensor:
        """The buffer with a source in it; it is copied now, unless it was begun before."""
        if self._copied != number:
            self.start(number)
        assert self._ready is not None  # a copy was begun
        torch.cuda.current_stream(self.device).wait_event(self._ready)
        self._used, self._copied = 1 - self._used, None
        return self._buffers[self._used]

    def done(self) -> None:
        """What computes with the buffer has been queued; the next copy into it goes behind that."""
        self._free[self._used] = torch.cuda.current_stream(self.device).record_event()

    def close(self) -> None:
        """Let what is computed from now on wait for a copy that was begun in vain."""
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
