"""DoRA: magnitudes of weights, learned beside the factors of a LoRA."""

from typing import Any

import pytest
import torch

from modules.adapters.layers import adaptable_layers
from modules.adapters.lora import LoRA
from modules.adapters.lora_layer import norms
from modules.adapters.magnitudes import with_original_norms
from tests.unit.modules.lora_cases import DORA, merged, trained


@pytest.mark.parametrize("axis", [0, 1])
def test_magnitudes_are_the_norms_of_what_comes_out(network: Any, axis: int) -> None:
    """Liu et al. 2024, equation 5: the merged weight's norms along the axis are the magnitudes."""
    lora = trained(network, dora=DORA[1 + axis])
    whole = adaptable_layers(merged(network, lora))
    for name, layer in lora.layers.items():
        magnitude = layer.dora_scale
        assert magnitude is not None
        found = norms(whole[name].weight, magnitude.shape)  # type: ignore[arg-type]
        torch.testing.assert_close(found, magnitude.abs().detach(), atol=1e-4, rtol=1e-4)


def test_the_norm_is_a_constant_to_the_gradient(make: Any) -> None:
    """The paper's equation 11: without its norm's part, the gradient is that of the weight, scaled."""
    network = make("stage_c").requires_grad_(False)
    layer = trained(network, {"clip_txt_mapper": 4}, dora=True).layers["clip_txt_mapper"]
    weight = network.clip_txt_mapper.weight
    layer.change(weight).sum().backward()
    patched = weight + layer.lora_up.weight.detach() @ layer.lora_down.weight.detach()
    scaled = layer.dora_scale.detach() / patched.norm(dim=1, keepdim=True)
    expected = scaled * layer.lora_down.weight.detach().sum(1)
    torch.testing.assert_close(layer.lora_up.weight.grad, expected)


def test_comfyui_gets_magnitudes_for_its_own_norms(make: Any) -> None:
    """It divides by the norms of the weight as it was; the rescaled magnitudes give the same change there."""
    network = make("stage_c").requires_grad_(False)
    state = trained(network, {"*.channelwise.*": 4}, dora=True).to_state({})
    theirs = with_original_norms(state, network)
    name = "down_blocks.0.0.channelwise.0"
    weight, factors = network.get_submodule(name).weight, theirs.parts["unet"][name]
    comfyui = (weight + factors.up @ factors.down) * (factors.dora_scale / weight.norm(dim=1, keepdim=True))
    ours = LoRA.from_state(state, network).layers[name].change(weight)
    torch.testing.assert_close(comfyui - weight, ours, atol=1e-5, rtol=1e-4)
    again = LoRA.from_state(theirs, network).layers[name].change(weight)
    torch.testing.assert_close(again, ours, atol=1e-5, rtol=1e-4)
