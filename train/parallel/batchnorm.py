"""BatchNorm whose statistics are those of all ranks, on any backend (torch's own needs CUDA)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def synchronise_batchnorm(module: nn.Module) -> None:
    """Make every BatchNorm2d inside average over ranks while it trains; in place, names stay the same."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SynchronisedBatchNorm2d


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Every BatchNorm2d inside leaves its running statistics alone within the context."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


class RunningStatistics:
    """The running means and variances of every BatchNorm2d inside, which a forward pass has moved already
    when a step turns out to be none."""

    def __init__(self, module: nn.Module) -> None:
        self._norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        self._kept: list[Tensor] = []

    def keep(self) -> None:
        """Remember them."""
        self._kept = [statistic.clone() for statistic in self._all()]

    def put_back(self) -> None:
        """Make them again what they were."""
        for statistic, kept in zip(self._all(), self._kept, strict=True):
            statistic.copy_(kept)

    def _all(self) -> list[Tensor]:
        each = (statistic for norm in self._norms for statistic in (norm.running_mean, norm.running_var))
        return [statistic for statistic in each if statistic is not None]


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the batches of all ranks, which may differ in size."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] of this rank."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        mean, var, count = global_statistics(x.to(torch.promote_types(x.dtype, torch.float32)))
        if self.track_running_stats:
            self._follow(mean.detach(), var.detach() * (count / (count - 1)))
        scale = torch.rsqrt(var + self.eps)  # [C]
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, unbiased_var: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased_var, share)


def global_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and count (scalar) per channel over all ranks. x: [B, C, H, W].

    The ranks' means and squared deviations are combined as Chan, Golub & LeVeque (1983) do: E[x²] − E[x]²
    would lose all digits where the mean is large. One collective forward, one backward.
    """
    count = x.numel() // x.shape[1]
    mean = x.mean(dim=(0, 2, 3))
    deviation = (x - mean.view(1, -1, 1, 1)).square().sum(dim=(0, 2, 3))
    parts = _Gather.apply(torch.cat([mean, deviation, mean.new_tensor([count])]))  # [ranks, 2 C + 1]
    means, deviations, counts = parts[:, : len(mean)], parts[:, len(mean) : -1], parts[:, -1:].detach()
    total = counts.sum()
    mean = (means * counts).sum(dim=0) / total
    var = (deviations + counts * (means - mean).square()).sum(dim=0) / total
    return mean, var, total


class _Gather(torch.autograd.Function):
    """All ranks' rows; backward adds up what all ranks' losses say about this rank's row."""

    @staticmethod
    def forward(ctx: Any, row: Tensor) -> Tensor:
        rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, row.contiguous())
        return torch.stack(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]
