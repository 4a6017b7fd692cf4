"""What holds of two ranks that share out a network's weights, checked in both; see parallel_worker.py."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

import modules
from tests.integration.recipe_cases import STAGE_A
from train.config import EmaConfig, OptimConfig, ParallelConfig
from train.ema import Ema
from train.parallel.fsdp import GATHERS_BF16
from train.parallel.preparation import shard
from train.parallel.shards import full, local, sync_gradients
from train.parallel.world import World
from train.player import Player

FSDP = ParallelConfig(mode="fsdp", shard_frozen=True)
SMALL = 2.0**-9  # 1 + SMALL is 1 in bf16


class Products(nn.Module):
    """Two products with a norm in between. [B, 4] -> [B, 4], a view"""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Linear(4, 4, bias=False),
            nn.LayerNorm(4),
            nn.Linear(4, 4, bias=False),
        )
        nn.init.ones_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {name: p.dtype for name, p in self.named_parameters()}
        return self.last(self.norm(self.first(x)))[:, :]

    def shard_units(self) -> list[nn.Module]:
        return [self.first]


def sharded(world: World, precision: str) -> Products:
    network = Products()
    shard([network], [], FSDP, world, precision)
    return network


def check_reduction(world: World) -> None:
    """Gradients are summed over ranks and micro-batches in fp32: bf16 would lose the small ones."""
    network = sharded(world, "bf16")

    def backward(factor: float) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            (network.first(torch.ones(1, 4)) * factor).sum().backward()

    backward(1.0 if world.rank == 0 else SMALL)
    assert torch.equal(full(network.first.weight.grad), torch.full((4, 4), (1 + SMALL) / 2))
    network.first.weight.grad = None
    for factor, is_last in ((1.0, False), (SMALL, True)):
        sync_gradients(network, is_last)
        backward(factor)
    assert torch.equal(full(network.first.weight.grad), torch.full((4, 4), 1 + SMALL))


def check_number_formats(world: World) -> None:
    """Shards learn in fp32; products see bf16, what else there is does not; fp32 runs see no bf16."""
    network = sharded(world, "bf16")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(2, 4) + 1).square().mean().backward()
    bf16, fp32 = torch.bfloat16, torch.float32
    gathered_yet = {name: number for name, number in network.seen.items() if name != "first.weight"}
    of_products = bf16 if GATHERS_BF16 else fp32
    assert gathered_yet == {"norm.weight": fp32, "norm.bias": fp32, "last.weight": of_products}
    optimizer.step()
    for parameter in network.parameters():
        assert isinstance(parameter, DTensor) and parameter.dtype == parameter.grad.dtype == fp32
    assert (full(network.last.weight) - 1).abs().max() < 2e-4, "a step that bf16 has no numbers for"
    assert (full(network.last.weight) - 1).abs().max() > 5e-5
    whole = sharded(world, "fp32")
    whole(torch.randn(2, 4)).sum().backward()
    assert set(whole.seen.values()) == {fp32}


def check_casts_are_freed(world: World) -> None:
    """What the backward pass keeps of a unit's bf16 weights is what sharding frees after the forward pass."""
    network, saved = sharded(world, "bf16"), []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bfloat16 and tensor.shape == (4, 4):
            saved.append(tensor)
        return tensor

    x = torch.randn(2, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        network(x)
    sizes = [tensor.untyped_storage().nbytes() for tensor in saved]
    assert sizes == [0, 32], f"the unit's weight is freed, the root's stays: {sizes}"


@contextmanager
def gathered() -> Iterator[list[int]]:
    """The number of elements of every tensor that is gathered whole within the context."""
    sizes: list[int] = []
    original = DTensor.full_tensor

    def full_tensor(tensor: DTensor, **keywords: object) -> Tensor:
        sizes.append(tensor.numel())
        return original(tensor, **keywords)

    DTensor.full_tensor = full_tensor
    try:
        yield sizes
    finally:
        DTensor.full_tensor = original


def check_average_stays_on_shards(world: World) -> None:
    """Steps, clipping and the average's own steps gather nothing but one number; nor does its exchange."""
    network = sharded(world, "fp32")
    player = Player("model", network, OptimConfig(lr=0.1), world, seed=0)
    ema = Ema(network, EmaConfig(decay=0.5))
    with gathered() as sizes:
        for step in range(3):
            loss = network(torch.randn(2, 4)).square().mean()
            assert player.update([loss], 1, 0.1, 0.01, step=0).is_finite
            with CommDebugMode() as sent:
                ema.update(step + 1)
                with ema.in_place():
                    pass
            assert sent.get_total_counts() == 0, sent.get_comm_counts()
    assert sizes == [1, 1, 1], f"gradient norms: {sizes}"
    for parameter, average in ema.average.items():
        assert local(average).numel() == local(parameter).numel() == parameter.numel() // 2
        assert not torch.equal(local(average), local(parameter.detach()))


def check_frozen(world: World) -> None:
    """A frozen network that is shared out computes the same by all its methods, and is whole only then."""
    torch.manual_seed(0)
    whole = modules.build("stage_a", STAGE_A).eval().requires_grad_(False)
    torch.manual_seed(0)
    shared = modules.build("stage_a", STAGE_A).eval().requires_grad_(False)
    shard([], [shared], FSDP, world, "fp32")
    images = torch.rand(1, 3, 8, 8)
    for network_call in (
        lambda network: network.decode(network.encode_unquantized(images)),
        lambda network: network.encode(images).latents,
        lambda network: network(images)[0],
    ):
        assert torch.equal(network_call(shared), network_call(whole))
        held = sum(local(parameter).numel() for parameter in shared.parameters())
        assert held < 0.6 * sum(parameter.numel() for parameter in whole.parameters())


def check_all(world: World) -> None:
    check_reduction(world)
    check_number_formats(world)
    if GATHERS_BF16:
        check_casts_are_freed(world)
    check_average_stays_on_shards(world)
    check_frozen(world)
