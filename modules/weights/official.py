"""Which network an official weight file holds, and its size, from the names and shapes of its tensors.

What shapes do not show is as released: heads of 64 channels, Stage B in patches of 2 x 2, no level switch.
"""

from collections.abc import Mapping
from typing import Any

from modules.adapters.controlnet import RELEASED_BLOCKS
from modules.registry import NETWORKS

Shapes = Mapping[str, tuple[int, ...]]
HEAD_CHANNELS = 64
# A tensor that only one kind of network has.
MARKS = {
    "stage_c": "clip_txt_mapper.weight",
    "stage_b": "effnet_mapper.0.weight",
    "stage_a": "vquantizer.codebook.weight",
    "semantic_compressor": "mapper.1.running_mean",
    "previewer": "blocks.24.weight",
    "discriminator": "shuffle.weight",
    "controlnet": "projections.0.0.weight",
    "saliency": "downsampler.1.weight",
    "pidinet": "init_block.weight",
}


def recognise(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """Name and config of the network with tensors of these shapes; ValueError if it is none of ours."""
    for name, mark in MARKS.items():
        if mark in shapes:
            return name, CONFIGS[name](shapes)
    few = ", ".join(sorted(shapes)[:3])
    raise ValueError(f"tensors of none of the networks {', '.join(NETWORKS)} (found {few}, ...)")


def stage_c_config(shapes: Shapes) -> dict[str, Any]:
    c_cond, c_clip_text = shapes["clip_txt_mapper.weight"]
    pooled_tokens, c_pooled = shapes["clip_txt_pooled_mapper.weight"]
    return unet_config(shapes, patch_size=1) | {
        "c_cond": c_cond,
        "c_clip_text": c_clip_text,
        "c_clip_text_pooled": c_pooled,
        "c_clip_img": shapes["clip_img_mapper.weight"][1],
        "c_clip_seq": pooled_tokens // c_cond,
    }


def stage_b_config(shapes: Shapes) -> dict[str, Any]:
    pooled_tokens, c_clip = shapes["clip_mapper.weight"]
    c_conds = {shape[1] for name, shape in shapes.items() if name.endswith("kv_mapper.1.weight")}
    c_cond = c_conds.pop() if c_conds else pooled_tokens // 4
    return unet_config(shapes, patch_size=2) | {
        "c_cond": c_cond,
        "c_clip": c_clip,
        "c_clip_seq": pooled_tokens // c_cond,
        "c_effnet": shapes["effnet_mapper.0.weight"][1],
        "c_pixels": shapes["pixels_mapper.0.weight"][1],
    }


def unet_config(shapes: Shapes, patch_size: int) -> dict[str, Any]:
    """What Stage B and Stage C have in common."""
    levels = count(shapes, "down_blocks")
    letters = [level_letters(shapes, f"down_blocks.{level}") for level in range(levels)]
    periods = [period(text) for text in letters]
    ups = [level_letters(shapes, f"up_blocks.{level}") for level in range(levels)]
    c_hidden = [shapes[f"down_blocks.{level}.0.channelwise.4.weight"][0] for level in range(levels)]
    mapper = f"down_blocks.0.{letters[0].index('T')}.mapper"
    repeats = [
        [count(shapes, f"{way}_repeat_mappers.{level}") + 1 for level in range(levels)]
        for way in ("down", "up")
    ]
    return {
        "c_in": shapes["embedding.1.weight"][1] // patch_size**2,
        "c_out": shapes["clf.1.weight"][0] // patch_size**2,
        "c_r": shapes[f"{mapper}.weight"][1],
        "patch_size": patch_size,
        "c_hidden": c_hidden,
        "nhead": [
            c // HEAD_CHANNELS if "A" in text else -1 for c, text in zip(c_hidden, letters, strict=True)
        ],
        "blocks": [
            [len(text) // len(part) for text, part in zip(letters, periods, strict=True)],
            [len(text) // len(part) for text, part in zip(ups, reversed(periods), strict=True)],
        ],
        "block_repeat": repeats,
        "level_config": periods,
        "kernel_size": shapes["down_blocks.0.0.depthwise.weight"][2],
        "dropout": [0.1 if "A" in text else 0.0 for text in letters],
        "t_conds": [name for name in ("sca", "crp") if f"{mapper}_{name}.weight" in shapes],
    }


def stage_a_config(shapes: Shapes) -> dict[str, Any]:
    codebook_size, c_latent = shapes["vquantizer.codebook.weight"]
    levels = 1 + sum(len(shape) == 4 and shape[-1] == 4 for shape in shapes.values()) // 2
    blocks = sum(name.startswith("up_blocks.") and name.endswith(".gammas") for name in shapes)
    return {
        "levels": levels,
        "bottleneck_blocks": blocks - (levels - 1),
        "c_hidden": shapes["up_blocks.0.0.weight"][0],
        "c_latent": c_latent,
        "codebook_size": codebook_size,
    }


def compressor_config(shapes: Shapes) -> dict[str, Any]:
    return {"c_latent": shapes["mapper.0.weight"][0]}


def previewer_config(shapes: Shapes) -> dict[str, Any]:
    c_hidden, c_in = shapes["blocks.0.weight"][:2]
    return {"c_in": c_in, "c_hidden": c_hidden, "c_out": shapes["blocks.24.weight"][0]}


def discriminator_config(shapes: Shapes) -> dict[str, Any]:
    depth = sum(name.endswith("weight_orig") for name in shapes)
    c_first, c_in = shapes["encoder.0.weight_orig"][:2]
    c_hidden = c_first * 2 ** max(depth - 3, 3)
    c_encoded = max(shape[0] for name, shape in shapes.items() if name.endswith("weight_orig"))
    return {
        "c_in": c_in,
        "c_cond": shapes["shuffle.weight"][1] - c_encoded,
        "c_hidden": c_hidden,
        "depth": depth,
    }


def controlnet_config(shapes: Shapes) -> dict[str, Any]:
    """Raises ValueError when the number of projections is not a released one: where they go does not show."""
    blocks = {len(each): each for each in (RELEASED_BLOCKS, range(64))}
    number = count(shapes, "projections")
    if number not in blocks:
        raise ValueError(f"a ControlNet with {number} projections; expected one of {sorted(blocks)}")
    stem = next(name for name in ("backbone.0.0.weight", "backbone.0.weight") if name in shapes)
    mode = "effnet" if stem == "backbone.0.0.weight" else "simple"
    return {
        "c_in": shapes[stem][1],
        "c_proj": shapes["projections.0.2.weight"][0],
        "proj_blocks": list(blocks[number]),
        "bottleneck_mode": "large" if "backbone.3.blocks.0.weight" in shapes else mode,
    }


CONFIGS = {
    "stage_c": stage_c_config,
    "stage_b": stage_b_config,
    "stage_a": stage_a_config,
    "semantic_compressor": compressor_config,
    "previewer": previewer_config,
    "discriminator": discriminator_config,
    "controlnet": controlnet_config,
    "saliency": lambda shapes: {},
    "pidinet": lambda shapes: {},
}


def count(shapes: Shapes, prefix: str) -> int:
    """How many numbered parts `prefix` has."""
    depth = prefix.count(".") + 1
    return len({name.split(".")[depth] for name in shapes if name.startswith(prefix + ".")})


def level_letters(shapes: Shapes, prefix: str) -> str:
    """The block letters of a level, as in `Level.letters` but written out."""

    def letter(block: str) -> str:
        parts = {"depthwise": "C", "mapper": "T", "attention": "A"}
        found = [
            kind
            for part, kind in parts.items()
            if any(name.startswith(f"{block}.{part}.") for name in shapes)
        ]
        return found[0] if found else "F"

    return "".join(letter(f"{prefix}.{number}") for number in range(count(shapes, prefix)))


def period(text: str) -> str:
    """The shortest string that `text` is a repetition of."""
    sizes = (size for size in range(1, len(text) + 1) if text == text[:size] * (len(text) // size))
    return text[: next(sizes)]
