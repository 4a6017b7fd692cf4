"""What the tensors of a LoRA file must be before anything is made of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from modules.adapters.lora_state import Factors, LoRAState

MOST_ALONG = 2**20  # of numbers along one side: more than any layer has
MOST_TEXT = 200  # letters of a token


def check_numbers(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless all are finite numbers, in shapes that layers have."""
    for name, tensor in tensors.items():
        if tensor.is_complex() or tensor.dtype == torch.bool:
            raise ValueError(f"{where}: {name}: expected numbers, found a tensor of {tensor.dtype}")
        if tensor.ndim > 4 or max(tensor.shape, default=0) > MOST_ALONG:
            raise ValueError(f"{where}: {name}: no layer has the shape {list(tensor.shape)}")
        if not tensor.isfinite().all():
            raise ValueError(f"{where}: {name}: holds numbers that are not finite")


def check_state(where: str, state: LoRAState) -> None:
    """Raise ValueError, naming the layer or token, for factors and texts that cannot be used."""
    for layers in (state.numbered, *state.parts.values()):
        for name, factors in layers.items():  # type: ignore[attr-defined]
            check_factors(f"{where}: layer {name}", factors)
    for text in (*state.tokens, *state.output_tokens):
        if not text.isprintable() or len(text) > MOST_TEXT:
            raise ValueError(
                f"{where}: tokens: expected up to {MOST_TEXT} printable letters, found {text[:MOST_TEXT]!r}"
            )


def check_factors(where: str, factors: Factors) -> None:
    """Raise ValueError unless these are a change of some rank, with no more than one alpha."""
    down, up, alpha, _ = factors
    if not (down.is_floating_point() and up.is_floating_point()):
        raise ValueError(f"{where}: expected floating numbers, found {up.dtype} and {down.dtype}")
    if min(down.ndim, up.ndim) < 2 or up.shape[1] != len(down) or not down.numel() or not up.numel():
        shapes = f"{list(up.shape)} and {list(down.shape)}"
        raise ValueError(f"{where}: expected up [out, rank] and down [rank, in], found {shapes}")
    if alpha is not None and alpha.numel() != 1:
        raise ValueError(f"{where}: expected one alpha, found {alpha.numel()}")
