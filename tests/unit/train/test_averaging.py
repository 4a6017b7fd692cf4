"""Averaging waits for the device once, however many buckets there are; real ranks: gradient_laws.py."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.parallel.averaging import GradientAverager


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_the_device_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.float32)
    used, unused = (nn.ParameterList(torch.ones(2, 3, dtype=dtype) for dtype in dtypes) for _ in range(2))
    averager = GradientAverager([p for pair in zip(used, unused, strict=True) for p in pair])
    assert len(averager.buckets) == len(dtypes)
    waits = []

    def counted(name: str) -> None:
        method = getattr(Tensor, name)
        monkeypatch.setattr(
            Tensor, name, lambda *args, **kwargs: waits.append(name) or method(*args, **kwargs)
        )

    counted("new_tensor")  # to the device
    counted("tolist")  # from it
    averager.arm()
    sum((number + 1) * parameter.float().sum() for number, parameter in enumerate(used)).backward()
    averager.finish()
    assert waits == ["new_tensor", "tolist"]
    assert all(torch.equal(p.grad, torch.full_like(p, n + 1)) for n, p in enumerate(used))
    assert all(p.grad is None for p in unused)
