"""The shapes of a LoRA's tensors for a layer's weight, and whether given ones fit it."""

from typing import Any

import torch
from torch import Tensor

from modules.adapters.lora_state import Factors


def fitted(name: str, factors: Factors, shape: tuple[int, ...]) -> Factors:
    """The factors in the shapes that a layer's weight wants; ValueError when they are of other sizes."""
    check_size(name, factors, shape)
    up, down = factors.up.flatten(1), factors.down.flatten(1)
    if up.shape[0] == shape[0]:  # else a grouped layer's change with all groups in one matrix
        kernel = [1] * len(shape[2:])
        factors = factors._replace(down=down.reshape(-1, *shape[1:]), up=up.reshape(*up.shape, *kernel))
    if factors.dora_scale is not None:
        axis = 0 if factors.dora_scale.shape[0] == shape[0] else 1
        if factors.dora_scale.numel() != shape[axis]:
            found = list(factors.dora_scale.shape)
            raise ValueError(f"LoRA: {name}: expected magnitudes of a weight {list(shape)}, found {found}")
        magnitude = magnitude_shape(shape, axis) or []
        factors = factors._replace(dora_scale=factors.dora_scale.reshape(magnitude))
    return factors


def check_size(name: str, factors: Factors, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the factors' product has as many elements as a weight of this shape."""
    up, down = factors.up.flatten(1), factors.down.flatten(1)
    if up.shape[1] != down.shape[0] or up.shape[0] * down.shape[1] != torch.Size(shape).numel():
        raise ValueError(
            f"LoRA: {name}: expected factors of a weight {list(shape)}, "
            f"found up {list(factors.up.shape)} and down {list(factors.down.shape)}"
        )


def factor_shapes(shape: tuple[int, ...], rank: int) -> tuple[list[int], list[int]]:
    """Shapes of down and up for a weight of this shape."""
    return [rank, *shape[1:]], [shape[0], rank, *(1 for _ in shape[2:])]


def magnitude_shape(shape: tuple[int, ...], axis: int | None) -> list[int] | None:
    """Shape of DoRA's magnitudes along an axis of a weight of this shape; None: there are none."""
    if axis is None:
        return None
    return [size if dim == axis else 1 for dim, size in enumerate(shape)]


def keywords(factors: Factors, norms_of: str) -> dict[str, Any]:
    """Of the `LoRALayer` that holds these factors."""
    rank = factors.down.shape[0]
    return {
        "down": list(factors.down.shape),
        "up": list(factors.up.shape),
        "alpha": float(rank if factors.alpha is None else factors.alpha),
        "dora": None if factors.dora_scale is None else list(factors.dora_scale.shape),
        "norms_of": norms_of,
    }


def entries(factors: Factors) -> dict[str, Tensor]:
    """The state of that layer."""
    rank = torch.tensor(float(factors.down.shape[0]))  # in float32: bf16 lacks numbers from 257 on
    state = {
        "lora_down.weight": factors.down,
        "lora_up.weight": factors.up,
        "alpha": (rank if factors.alpha is None else factors.alpha).reshape(()),
    }
    return state if factors.dora_scale is None else {**state, "dora_scale": factors.dora_scale}
