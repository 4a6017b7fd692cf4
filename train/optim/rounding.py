"""Weights in bf16 whose updates are rounded up or down by chance, so that none is too small to be learnt.

Rounded to the nearest bf16, a weight would never follow updates of less than 1/512 of it. Rounded up with the
chance that the distance to the lower neighbour says, it follows them in the mean (Gupta et al. 2015).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from modules.schema import ConfigError
from train.parallel.fsdp import product_weights

CUT_BITS = 16  # of an fp32 number's mantissa, which bf16 does not have


def lower(module: nn.Module) -> None:
    """Turn the learning matrices and kernels of products into bf16, in place.

    They are what autocast casts to bf16 in every call; all else that learns (biases, norms, embeddings, a
    LoRA's factors) is small or no product's, and stays fp32. Raises ConfigError when nothing is left.
    """
    weights = [parameter for parameter in product_weights(module) if parameter.requires_grad]
    if not weights:
        raise ConfigError(
            "optim.weights: found bf16_stochastic, but nothing that learns here is a plain matrix or kernel"
            " (a LoRA's factors stay fp32); use fp32"
        )
    for parameter in weights:
        parameter.data = parameter.data.to(torch.bfloat16)


def round_stochastically(values: Tensor, rng: torch.Generator) -> Tensor:
    """fp32 values as bf16: one of the two neighbours, such that the mean over `rng` is the value itself."""
    noise = torch.randint(
        2**CUT_BITS, values.shape, generator=rng, dtype=torch.int32, device=values.device
    )  # carries into the bits that stay as often as those that go say
    kept = (values.view(torch.int32) + noise).bitwise_and_(-(2**CUT_BITS))
    return kept.view(torch.float32).to(torch.bfloat16)


@contextmanager
def in_fp32(parameter: nn.Parameter, rng: torch.Generator) -> Iterator[None]:
    """A bf16 parameter and its gradient are fp32 within the context; what has become of it is rounded."""
    weight, gradient = parameter.data, parameter.grad
    parameter.grad = None  # it has to be of the parameter's number format
    parameter.data = weight.float()
    parameter.grad = None if gradient is None else gradient.float()
    yield
    weight.copy_(round_stochastically(parameter.data, rng))
    parameter.grad = None
    parameter.data = weight
    parameter.grad = gradient
