"""Data parallel training in place: gradients are averaged over ranks while the backward pass still runs."""

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 25 * 2**20


class GradientAverager:
    """Averages the gradients of `parameters` over all ranks, bucket by bucket, as they become ready.

    Unlike DistributedDataParallel it leaves the module alone: its parameters may be frozen and freed between
    steps (two players), stay unused, or be used by several calls in one backward pass.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.buckets = split(parameters[::-1])  # the backward pass reaches the last parameters first
        self._armed = False
        for index, bucket in enumerate(self.buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(partial(self._ready, index))

    def arm(self) -> None:
        """The next backward pass is the step's last: send each bucket as soon as it is complete."""
        self._armed = True
        self._waiting = [len(bucket) for bucket in self.buckets]
        self._sent: list[tuple[Tensor, dist.Work]] = []

    def finish(self) -> None:
        """Send what is left and wait; afterwards every `.grad` is the average, or None if no rank had one."""
        while len(self._sent) < len(self.buckets):
            self._send()
        used = iter(self._used())
        for bucket, (flat, work) in zip(self.buckets, self._sent, strict=True):
            work.wait()
            for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter) if next(used) else None
        self._armed, self._sent = False, []

    def _ready(self, index: int, parameter: Tensor) -> None:
        if not self._armed:
            return
        self._waiting[index] -= 1
        # Buckets leave in the same order on every rank, whatever the order in which they fill up.
        while len(self._sent) < len(self.buckets) and self._waiting[len(self._sent)] == 0:
            self._send()

    def _send(self) -> None:
        bucket = self.buckets[len(self._sent)]
        parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in bucket]
        flat = torch.cat(parts).div_(dist.get_world_size())
        self._sent.append((flat, dist.all_reduce(flat, async_op=True)))

    def _used(self) -> list[float]:
        """Of each parameter, how many ranks have a gradient; asked once a step: that waits for the device."""
        parameters = [parameter for bucket in self.buckets for parameter in bucket]
        used = parameters[0].new_tensor([p.grad is not None for p in parameters], dtype=torch.float32)
        dist.all_reduce(used)
        return used.tolist()


def split(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Consecutive parameters of the same type in buckets of about 25 MB."""
    buckets: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not buckets or size >= BUCKET_BYTES or parameter.dtype != buckets[-1][0].dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return buckets
