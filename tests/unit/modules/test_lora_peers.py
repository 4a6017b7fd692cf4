"""LoRA files against peft and diffusers: theirs work here as there, ours work there as here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modules.adapters.lora import LoRA
from modules.weights.lora_files import read_lora, write_lora
from tests.unit.modules.test_diffusers_peer import peer

peft = pytest.importorskip("peft")

SIZES: dict[str, dict[str, Any]] = {
    "stage_c": {
        "clip_text_in_channels": 12,
        "clip_text_pooled_in_channels": 10,
        "clip_image_in_channels": 7,
        "switch_level": [False],
    },
    "stage_b": {"clip_text_pooled_in_channels": 12, "effnet_in_channels": 6, "pixel_mapper_in_channels": 3},
}
PREFIXES = {"stage_c": "prior.", "stage_b": "decoder."}
# What both know: all layers but depthwise convolutions, in which peft would mix channels.
LAYERS = {"*": 4, "*.depthwise": 0, "*.attn.*": 8}
THEIR_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "kv_mapper.1", "channelwise.0", "channelwise.4", "mapper"),
    *("embedding.1", "clip_txt_pooled_mapper", "clip_txt_mapper", "effnet_mapper.0"),
)


class Pair:
    """The same network of ours and of diffusers, and one input."""

    def __init__(self, name: str, make: Any, inputs: Any) -> None:
        # Without feed-forward blocks, which diffusers does not have.
        changes = {"level_config": ["CT", "CT", "CTA"], "nhead": [-1, -1, 4]} if name == "stage_b" else {}
        self.name = name
        self.ours = make(name, **changes).eval().requires_grad_(False)
        self.theirs = peer(self.ours, self.ours.config, **SIZES[name])
        self.inputs = inputs(name) | ({"pixels": torch.randn(2, 3, 5, 4)} if name == "stage_b" else {})

    def our_output(self) -> Tensor:
        return self.ours(**self.inputs)

    def their_output(self) -> Tensor:
        given = dict(self.inputs)
        given["sample"], given["timestep_ratio"] = given.pop("x"), given.pop("r")
        if self.name == "stage_b":
            given["clip_text_pooled"] = given.pop("clip")
        with torch.no_grad():
            return self.theirs(**given).sample

    def check(self) -> None:
        """Outputs agree to 1e-4 of the largest, and are not those without LoRA."""
        ours, theirs = self.our_output(), self.their_output()
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.fixture(params=["stage_c", "stage_b"])
def pair(request: pytest.FixtureRequest, make: Any, inputs: Any) -> Pair:
    return Pair(request.param, make, inputs)


def moved(module: nn.Module, names: str = "") -> nn.Module:
    """Its parameters with these letters in their names, moved from where they start."""
    rng = torch.Generator().manual_seed(5)
    for name, parameter in module.named_parameters():
        if names in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return module


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("layout", ["peft", "diffusers"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_ours_works_in_diffusers(pair: Pair, layout: str, dora: bool, tmp_path: Path) -> None:
    lora = LoRA.create(pair.ours, LAYERS, alpha=2, dora=dora)
    moved(lora)
    without = pair.our_output()
    write_lora(tmp_path / "lora.safetensors", lora.to_state({"for": pair.name}), layout)
    lora.attach(pair.ours)
    prefix = PREFIXES[pair.name] if layout == "diffusers" else ""
    tensors = {key.removeprefix(prefix): t for key, t in load_file(tmp_path / "lora.safetensors").items()}
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        config = json.loads(file.metadata()["lora_adapter_metadata"])
    settings = {key.removeprefix(prefix): value for key, value in config.items()}
    peft.inject_adapter_in_model(peft.LoraConfig(**settings), pair.theirs)
    loaded = peft.set_peft_model_state_dict(pair.theirs, tensors)
    assert not loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if "lora" in key]
    pair.check()
    assert not torch.allclose(pair.our_output(), without, atol=1e-2)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_theirs_works_here(pair: Pair, dora: bool, tmp_path: Path) -> None:
    config = peft.LoraConfig(
        r=4,
        lora_alpha=2,
        target_modules=list(THEIR_LAYERS),
        use_dora=dora,
        rank_pattern={"to_q": 2},
        alpha_pattern={"to_v": 16},
    )
    peft.inject_adapter_in_model(config, pair.theirs)
    moved(pair.theirs, "lora_")
    tensors = {key: t.contiguous() for key, t in peft.get_peft_model_state_dict(pair.theirs).items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config.save_pretrained(tmp_path)
    state = read_lora(tmp_path)
    assert state.facts["layout"] == "peft"
    LoRA.from_state(state, pair.ours).attach(pair.ours)
    pair.check()
    write_lora(tmp_path / "again.safetensors", state, "peft")
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in again)


def test_peft_says_that_it_cannot_hold_depthwise_convolutions(make: Any, tmp_path: Path) -> None:
    lora = LoRA.create(make("stage_c"), {"*.depthwise": 2})
    with pytest.raises(ValueError, match="no form for depthwise"):
        write_lora(tmp_path / "lora.safetensors", lora.to_state({}), "peft")
