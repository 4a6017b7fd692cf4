"""The U-Nets against those of diffusers, the other implementation there is.

Without timestep companions: diffusers 0.42 fails on those of more than one picture.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

unet = pytest.importorskip("diffusers.models.unets.unet_stable_cascade")

TYPES = {"C": "SDCascadeResBlock", "T": "SDCascadeTimestepBlock", "A": "SDCascadeAttnBlock"}


def renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Our parameter under the names that diffusers gives it."""
    name = name.replace("clip_mapper.", "clip_txt_pooled_mapper.").replace("attn.out_proj.", "to_out.0.")
    if "attn.in_proj_" in name:
        return {
            name.replace("attn.in_proj_", f"to_{part}."): third
            for part, third in zip("qkv", tensor.chunk(3), strict=True)
        }
    return {name: tensor}


def peer(network: Any, config: dict[str, Any], **sizes: Any) -> Any:
    """The same network in diffusers, with the same weights."""
    (down, up), repeats = config["blocks"], config.get("block_repeat") or [[1] * len(config["c_hidden"])] * 2
    theirs = unet.StableCascadeUNet(
        in_channels=config["c_in"],
        out_channels=config["c_out"],
        timestep_ratio_embedding_dim=config["c_r"],
        patch_size=config["patch_size"],
        conditioning_dim=config["c_cond"],
        block_out_channels=config["c_hidden"],
        num_attention_heads=config["nhead"],
        down_num_layers_per_block=down,
        up_num_layers_per_block=up,
        down_blocks_repeat_mappers=repeats[0],
        up_blocks_repeat_mappers=repeats[1],
        block_types_per_layer=[[TYPES[letter] for letter in letters] for letters in config["level_config"]],
        clip_seq=config["c_clip_seq"],
        kernel_size=config["kernel_size"],
        dropout=[0.0] * len(config["c_hidden"]),
        timestep_conditioning_type=config["t_conds"],
        **sizes,
    )
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        state |= renamed(name, tensor)
    theirs.load_state_dict(state, strict=True)
    return theirs.eval()


def test_stage_b_equals_diffusers(make: Any, inputs: Any) -> None:
    network = make("stage_b", level_config=["CT", "CT", "CTA"], nhead=[-1, -1, 4]).eval()
    sizes = {"clip_text_pooled_in_channels": 12, "effnet_in_channels": 6, "pixel_mapper_in_channels": 3}
    theirs = peer(network, network.config, **sizes)
    given = {**inputs("stage_b"), "pixels": torch.randn(2, 3, 5, 4)}
    ours = network(**given)
    given["sample"], given["timestep_ratio"] = given.pop("x"), given.pop("r")
    given["clip_text_pooled"] = given.pop("clip")
    torch.testing.assert_close(ours, theirs(**given).sample, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("switch", [False, True])
def test_stage_c_equals_diffusers(switch: bool, make: Any, inputs: Any) -> None:
    network = make("stage_c", switch_level=[switch]).eval()
    sizes = {"clip_text_in_channels": 12, "clip_text_pooled_in_channels": 10, "clip_image_in_channels": 7}
    theirs = peer(network, network.config, switch_level=[switch], **sizes)
    given = inputs("stage_c")
    ours = network(**given)
    given["sample"], given["timestep_ratio"] = given.pop("x"), given.pop("r")
    torch.testing.assert_close(ours, theirs(**given).sample, atol=1e-4, rtol=1e-4)
