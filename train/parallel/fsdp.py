"""Networks whose weights are shared out over processes (FSDP2): who holds what, in which number format."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.utils._pytree import tree_map_only

from modules.adapters.lora_layer import LoRALayer
from modules.attention import Attention

# Whether this PyTorch can gather some weights in another number format than the rest; 2.11 cannot.
GATHERS_BF16 = "param_dtype_override_fn" in inspect.signature(MixedPrecisionPolicy).parameters
PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, Attention)


def share_out(network: nn.Module, mesh: DeviceMesh, precision: str) -> None:
    """Share out a network's weights, its units' one by one; in place, names and references stay valid.

    Shards, their gradients and the reduction of these are fp32 where the weights are. With precision bf16 the
    weights of products are gathered in bf16, as autocast would cast them: half is sent, and the casts need
    not be kept for the backward pass. Where PyTorch cannot do so all are gathered as they are, and autocast
    casts them then.
    """
    in_bf16 = precision == "bf16" and GATHERS_BF16
    policy = bf16_policy(network) if in_bf16 else MixedPrecisionPolicy()
    _share_out(network, mesh=mesh, mp_policy=policy)


def share_out_frozen(network: nn.Module, mesh: DeviceMesh) -> None:
    """Share out a network that does not learn, in the number format that it has; whole only while it runs."""
    _share_out(network, mesh=mesh, reshard_after_forward=True)
    for name in getattr(network, "forward_methods", ()):
        register_fsdp_forward_method(network, name)


def _share_out(network: nn.Module, **settings: Any) -> None:
    # Shards cannot be kernels in channels-last order; pictures in that order are enough for convolutions.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in (*network.shard_units(), network):  # type: ignore[operator]
        module.register_forward_hook(_own_output)
        fully_shard(module, **settings)


def bf16_policy(network: nn.Module) -> MixedPrecisionPolicy:
    """Weights that autocast casts to bf16 are gathered so; all others, and inputs, stay as they are."""
    products = {id(parameter) for parameter in product_weights(network)}

    def number_format(parameter: nn.Parameter) -> torch.dtype:
        return torch.bfloat16 if id(parameter) in products else parameter.dtype

    return MixedPrecisionPolicy(
        param_dtype=torch.bfloat16,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # the noise condition in bf16 would be another noise condition
        param_dtype_override_fn=number_format,
    )


def product_weights(network: nn.Module) -> Iterator[nn.Parameter]:
    """The fp32 matrices and kernels that only ever enter a product.

    Not a LoRA's, whose products are taken in fp32 where DoRA measures them, nor what is normalised first.
    """
    apart = {part for layer in network.modules() if isinstance(layer, LoRALayer) for part in layer.modules()}
    for module in network.modules():
        if isinstance(module, PRODUCTS) and module not in apart:
            for parameter in module.parameters(recurse=False):
                if parameter.ndim > 1 and parameter.dtype == torch.float32:
                    yield parameter


def _own_output(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Tensors of their own in place of views, which FSDP cannot safely hook."""

    def own(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.requires_grad and tensor._is_view() else tensor

    return tree_map_only(Tensor, own, output)
