"""Who holds what of four ranks, two on each of two machines; see parallel_worker.py."""

import pytest
import torch
from torch import nn

from modules.schema import ConfigError
from tests.integration.sharding_laws import Products
from train.config import ParallelConfig
from train.parallel.mesh import make_mesh, processes_per_machine
from train.parallel.preparation import shard
from train.parallel.ranks import gather
from train.parallel.shards import full, gradient_norm, like, local
from train.parallel.world import World


def check_mesh(world: World) -> None:
    """By default a machine's processes share one copy; any divisor of all processes will do."""
    assert processes_per_machine() == 2
    rows = {size: [list(range(first, first + size)) for first in range(0, 4, size)] for size in (1, 2)}
    for size, mesh in rows.items():
        assert make_mesh(ParallelConfig(mode="hsdp", shard_size=size), world).mesh.tolist() == mesh
    assert make_mesh(ParallelConfig(mode="hsdp"), world).mesh.tolist() == rows[2]
    for config in (ParallelConfig(mode="hsdp", shard_size=4), ParallelConfig(mode="fsdp")):
        assert make_mesh(config, world).mesh.tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match=r"parallel\.shard_size: expected a divisor of 4, .* found 3"):
        make_mesh(ParallelConfig(mode="hsdp", shard_size=3), world)


def check_copies(world: World) -> None:
    """Neighbours hold halves, the machines the same; gradients are those of all four ranks' mean."""
    torch.manual_seed(0)
    network: nn.Module = Products()
    shard([network], [], ParallelConfig(mode="hsdp"), world, "fp32")
    weight = network.get_parameter("last.weight")
    assert local(weight.detach()).shape == (2, 4)
    value = torch.arange(16.0).view(4, 4)
    with torch.no_grad():
        local(weight).copy_(local(like(value, weight)))
    halves = gather(local(weight.detach()).tolist())
    assert halves[:2] == halves[2:] == [value[:2].tolist(), value[2:].tolist()]
    network(torch.full((1, 4), world.rank + 1.0) * torch.arange(4)).sum().backward()
    torch.manual_seed(0)
    whole = Products()
    with torch.no_grad():
        whole.last.weight.copy_(value)
    inputs = torch.arange(1.0, 5)[:, None] * torch.arange(4)
    (whole(inputs).sum() / 4).backward()
    for one, other in zip(whole.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(full(other.grad), one.grad, rtol=1e-5, atol=1e-5)
    norms = gradient_norm(list(network.parameters())), gradient_norm(list(whole.parameters()))
    torch.testing.assert_close(*norms, rtol=1e-5, atol=0)


def check_all(world: World) -> None:
    check_mesh(world)
    check_copies(world)
