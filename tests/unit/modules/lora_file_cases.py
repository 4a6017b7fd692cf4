"""LoRAs as the files of the tools hold them, for the tests of these files."""

import torch
from torch import Tensor

from modules.adapters.lora_state import Factors, LoRAState
from modules.weights.lora_files import LAYOUTS

ONETRAINER = [layout for layout in LAYOUTS if layout.startswith("onetrainer")]
TO_Q, OUT, MLP, KV = (
    "down_blocks.0.2.attention.attn.to_q",
    "down_blocks.0.2.attention.attn.out_proj",
    "up_blocks.1.12.channelwise.4",
    "down_blocks.0.2.kv_mapper.1",
)
TEXT = "text_model.encoder.layers.3.self_attn.q_proj"
FLAT_Q, FLAT_OUT = "down_blocks_0_2_attention_attn_to_q", "down_blocks_0_2_attention_attn_out_proj"
FLAT_TE = "text_model_encoder_layers_3_self_attn_q_proj"
A, B, DOWN, UP = ".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight"


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float32)


def factors(rank: int = 4, alpha: float | None = 2.0, **more: Tensor) -> Factors:
    """Random factors of a layer of 16 to 16 channels; more: further fields of `Factors`."""
    return Factors(noise(rank, 16), noise(16, rank), None if alpha is None else torch.tensor(alpha), **more)


def state_of(network: str = "stage_c", text_encoder: bool = False, **layers: Factors) -> LoRAState:
    """A LoRA of the layers q, k, v, out and mlp, or of those given, each with its factors."""
    state = LoRAState(facts={"for": network, "base": {"network": network, "fingerprint": "ab"}})
    names = {"q": TO_Q, "k": TO_Q.replace("_q", "_k"), "v": TO_Q.replace("_q", "_v"), "out": OUT, "mlp": MLP}
    for name, each in (layers or {name: factors() for name in names}).items():
        state.parts["unet"][names[name]] = each
    if text_encoder:
        state.parts["text_encoder"][TEXT] = factors()
    return state


def assert_same(found: LoRAState, expected: LoRAState) -> None:
    """Names, and every bit of every tensor."""
    assert found.tokens.keys() == expected.tokens.keys()
    assert all(torch.equal(found.tokens[text], expected.tokens[text]) for text in found.tokens)
    for part, layers in expected.parts.items():
        assert found.parts[part].keys() == layers.keys()
        for name, each in layers.items():
            for leaf, one, other in zip(each._fields, each, found.parts[part][name], strict=True):
                same = one is other is None or (one.shape == other.shape and torch.equal(one, other))
                assert same, (name, leaf)
