"""The CLIP encoders: transformers' names, which diffusers uses too, and open_clip's of the picture encoder.

What shapes do not show is as in the encoders of the released models: heads of 64 channels; GELU in the text
encoder (ViT-bigG of laion2B), its quick approximation in the picture encoder (ViT-L of OpenAI).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from modules.weights.lazy import LazyTensor, State, thirds

Shapes = Mapping[str, tuple[int, ...]]
HEAD_CHANNELS = 64
MARKS = {
    "text_encoder": "text_model.embeddings.token_embedding.weight",
    "image_encoder": "vision_model.embeddings.class_embedding",
}
CLASSES = {"text_encoder": "CLIPTextModelWithProjection", "image_encoder": "CLIPVisionModelWithProjection"}
# Numbers of the positions, which older versions stored, and the temperature of CLIP's own training.
IGNORED = re.compile(r".*\.position_ids|logit_scale")
OPEN_CLIP_MARK = "conv1.weight"
OPEN_CLIP = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.": "pre_layrnorm.",  # so spelt in transformers
    "ln_post.": "post_layernorm.",
    "transformer.resblocks.": "encoder.layers.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
}


def to_ours(state: State) -> dict[str, LazyTensor]:
    """An encoder's tensors under transformers' names, without what no encoder reads."""
    state = {name.removeprefix("visual."): tensor for name, tensor in state.items()}
    if OPEN_CLIP_MARK in state:
        state = from_open_clip(state)
    if "text_projection" in state:  # ComfyUI's older files have the matrix itself, not a layer's weight
        state["text_projection.weight"] = state.pop("text_projection").transposed()
    return {name: tensor for name, tensor in state.items() if not IGNORED.fullmatch(name)}


def from_open_clip(state: State) -> dict[str, LazyTensor]:
    """open_clip's picture encoder under transformers' names; the packed projections are cut in three."""
    result: dict[str, LazyTensor] = {}
    for name, tensor in state.items():
        if name == "proj":
            result["visual_projection.weight"] = tensor.transposed()
            continue
        for theirs, ours in OPEN_CLIP.items():
            name = name.replace(theirs, ours)
        name = f"vision_model.{name}"
        if found := re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", name):
            for letter, third in zip("qkv", thirds(tensor), strict=True):
                result[f"{found[1]}.self_attn.{letter}_proj.{found[2]}"] = third
        else:
            result[name] = tensor
    return result


def recognise(shapes: Shapes) -> tuple[str, dict[str, Any]] | None:
    """Name and transformers' config of the encoder with tensors of these shapes; None if it is none."""
    for name, mark in MARKS.items():
        if mark in shapes:
            specific = text_config(shapes) if name == "text_encoder" else image_config(shapes)
            return name, {"architectures": [CLASSES[name]], **specific}
    return None


def text_config(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes[MARKS["text_encoder"]]
    return common_config(shapes, "text_model", width) | {
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "projection_dim": shapes["text_projection.weight"][0],
        "hidden_act": "gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 1,
    }


def image_config(shapes: Shapes) -> dict[str, Any]:
    width, channels, patch_size, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
    patches = shapes["vision_model.embeddings.position_embedding.weight"][0] - 1
    return common_config(shapes, "vision_model", width) | {
        "model_type": "clip_vision_model",
        "num_channels": channels,
        "patch_size": patch_size,
        "image_size": math.isqrt(patches) * patch_size,
        "projection_dim": shapes["visual_projection.weight"][0],
        "hidden_act": "quick_gelu",
    }


def common_config(shapes: Shapes, prefix: str, width: int) -> dict[str, Any]:
    layers = f"{prefix}.encoder.layers."
    numbers = {name.removeprefix(layers).split(".")[0] for name in shapes if name.startswith(layers)}
    return {
        "hidden_size": width,
        "num_hidden_layers": len(numbers),
        "num_attention_heads": max(1, width // HEAD_CHANNELS),
        "intermediate_size": shapes[f"{layers}0.mlp.fc1.weight"][0],
    }
