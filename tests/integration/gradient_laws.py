"""BatchNorm statistics and averaged gradients of two ranks against those of the whole batch."""

import copy

import torch
import torch.distributed as dist
from torch import nn

from train.parallel.averaging import GradientAverager
from train.parallel.batchnorm import synchronise_batchnorm

SIZES = (3, 5)  # of the two ranks' batches


def network() -> nn.Sequential:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(4, affine=False, momentum=None)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 4, 1), plain).double()


def check_batchnorm(rank: int) -> None:
    """Ranks with batches of different sizes, large means, two steps."""
    whole = network()
    own = copy.deepcopy(whole)
    synchronise_batchnorm(own)
    for step in range(2):
        torch.manual_seed(step + 1)
        x = (torch.randn(sum(SIZES), 2, 6, 6) + 100).double()
        mine = x.split(SIZES)[rank].clone().requires_grad_()
        x.requires_grad_()
        expected, found = whole(x), own(mine)
        torch.testing.assert_close(found, expected.split(SIZES)[rank], atol=1e-5, rtol=1e-5)
        for module, output in ((whole, expected), (own, found)):
            module.zero_grad()
            (output.sin() * torch.linspace(0, 1, 4).view(1, 4, 1, 1)).sum().backward()
        torch.testing.assert_close(mine.grad, x.grad.split(SIZES)[rank], atol=1e-5, rtol=1e-4)
        for (name, one), other in zip(whole.named_parameters(), own.parameters(), strict=True):
            dist.all_reduce(other.grad)
            torch.testing.assert_close(other.grad, one.grad, atol=1e-4, rtol=1e-4, msg=name)
    for (name, one), other in zip(whole.named_buffers(), own.buffers(), strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5, msg=name)


def check_averaging(rank: int) -> None:
    """Accumulated, unused everywhere, used by one rank only, used twice: each gradient is the average."""
    layers = nn.ModuleList(nn.Linear(3, 3, bias=False) for _ in range(4))
    for index, layer in enumerate(layers):
        nn.init.constant_(layer.weight, index + 1.0)
    twice, rank_0_only, never, always = layers
    averager = GradientAverager(list(layers.parameters()))
    x = torch.full((1, 3), rank + 1.0)
    always(x).sum().backward()  # the first micro-batch is not sent
    averager.arm()
    loss = always(x).sum() + twice(x).sum() + twice(2 * x).sum()
    if rank == 0:
        loss = loss + rank_0_only(x).sum()
    loss.backward()
    averager.finish()
    mean = 1.5  # of the ranks' inputs 1 and 2
    assert never.weight.grad is None
    assert torch.equal(always.weight.grad, torch.full((3, 3), 2 * mean))
    assert torch.equal(twice.weight.grad, torch.full((3, 3), 3 * mean))
    assert torch.equal(rank_0_only.weight.grad, torch.full((3, 3), 0.5))
