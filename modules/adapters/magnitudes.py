"""DoRA's magnitudes for ComfyUI, which divides by other norms than the paper where they are by output."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from modules.adapters.layers import adaptable_layers, find
from modules.adapters.lora_layer import norms
from modules.adapters.lora_state import Factors, LoRAState


@torch.no_grad()
def with_original_norms(state: LoRAState, network: nn.Module) -> LoRAState:
    """The same changes with magnitudes for the norms of the network's weights as they are.

    ComfyUI computes magnitude / norm(W) · (W + change) where magnitudes are by output, though they are
    trained as magnitude / norm(W + change) · (W + change); by input it does the latter. So a file for ComfyUI
    with magnitudes by output means there what it means here only after this; others stay as they are.
    ValueError for layers that the network does not have.
    """
    if state.facts.get("norms_of") == "original" or not any(map(_by_output, state.parts["unet"].values())):
        return state
    found = adaptable_layers(network)
    layers = {
        name: _for_norms_of(find(found, name).weight, factors) if _by_output(factors) else factors  # type: ignore[arg-type]
        for name, factors in state.parts["unet"].items()
    }
    return replace(
        state, parts={**state.parts, "unet": layers}, facts={**state.facts, "norms_of": "original"}
    )


def _by_output(factors: Factors) -> bool:
    return factors.dora_scale is not None and factors.dora_scale.shape[0] > 1


def _for_norms_of(weight: Tensor, factors: Factors) -> Factors:
    magnitude = factors.dora_scale
    assert magnitude is not None
    rank = len(factors.down)
    scale = 1.0 if factors.alpha is None else float(factors.alpha) / rank
    change = (factors.up.flatten(1) @ factors.down.flatten(1)).reshape(weight.shape) * scale
    ratio = norms(weight.float(), magnitude.shape) / norms(weight.float() + change, magnitude.shape)
    return factors._replace(dora_scale=magnitude * ratio)
