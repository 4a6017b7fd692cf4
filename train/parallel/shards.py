"""Sharded networks: whole tensors from shards and back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def sync_gradients(module: nn.Module, enabled: bool) -> None:
    """Whether the next backward pass through sharded parts sends gradients (the last micro-batch does)."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_requires_gradient_sync(enabled, recurse=False)


def reshard(network: nn.Module) -> None:
    """Free the whole weights that the last call gathered, so that the shards are what is read and written."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def whole_weights(network: nn.Module) -> Iterator[None]:
    """A sharded network's parameters are whole within the context, to be read; what is written is lost."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
    try:
        yield
    finally:
        reshard(network)


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a sharded tensor (sharing its memory); any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor (all ranks must call); any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, target: Tensor) -> Tensor:
    """A whole tensor, the same on all ranks, cut and placed as `target` is; nothing is sent."""
    value = value.to(target.device)
    if isinstance(target, DTensor):
        return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    return value


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Overwrite a parameter, sharded or not, with a whole tensor that is the same on all ranks."""
    local(target.detach()).copy_(local(like(value, target)))


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, over all shards, in fp32; the same scalar on all ranks."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    if any(gradient.dtype == torch.bfloat16 for gradient in gradients):  # whose norms would be bf16
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
        return torch.linalg.vector_norm(torch.stack(norms))
    return full(torch.nn.utils.get_total_norm(gradients))


def is_sharded(module: nn.Module) -> bool:
    """Whether parts of `module` are shared out over the ranks (their gradients then need no averaging)."""
    return any(isinstance(part, FSDPModule) for part in module.modules())
