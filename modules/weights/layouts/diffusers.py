"""diffusers' names and configs of Stage A (PaellaVQModel), Stage B and Stage C (StableCascadeUNet).

Only the attention, Stage A's codebook and Stage B's text mapper have other names there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from modules.levels import per_level
from modules.weights.layouts.projections import packed, separated
from modules.weights.lazy import LazyTensor, State

VERSION = "0.35.2"  # the last that supports Stable Cascade
UNET, VQGAN = "StableCascadeUNet", "PaellaVQModel"
CLASSES = {"stage_a": VQGAN, "stage_b": UNET, "stage_c": UNET}
BLOCKS = {"C": "SDCascadeResBlock", "T": "SDCascadeTimestepBlock", "A": "SDCascadeAttnBlock"}
LETTERS = {name: letter for letter, name in BLOCKS.items()}

# (ours, theirs)
OUTPUT = (".attention.attn.out_proj.", ".attention.to_out.0.")
CODEBOOK = ("vquantizer.codebook.weight", "vquantizer.embedding.weight")
TEXT_MAPPER = ("clip_mapper.", "clip_txt_pooled_mapper.")
UNET_KEYS = {
    "c_in": "in_channels",
    "c_out": "out_channels",
    "c_r": "timestep_ratio_embedding_dim",
    "patch_size": "patch_size",
    "c_cond": "conditioning_dim",
    "c_hidden": "block_out_channels",
    "nhead": "num_attention_heads",
    "c_clip_seq": "clip_seq",
    "kernel_size": "kernel_size",
    "dropout": "dropout",
    "self_attn": "self_attn",
    "t_conds": "timestep_conditioning_type",
}
STAGE_KEYS = {
    "stage_b": {
        "c_clip": "clip_text_pooled_in_channels",
        "c_effnet": "effnet_in_channels",
        "c_pixels": "pixel_mapper_in_channels",
    },
    "stage_c": {
        "c_clip_text": "clip_text_in_channels",
        "c_clip_text_pooled": "clip_text_pooled_in_channels",
        "c_clip_img": "clip_image_in_channels",
        "switch_level": "switch_level",
    },
}
VQGAN_KEYS = {
    "levels": "levels",
    "bottleneck_blocks": "bottleneck_blocks",
    "c_hidden": "embed_dim",
    "c_latent": "latent_channels",
    "codebook_size": "num_vq_embeddings",
    "scale_factor": "scale_factor",
}
# The config of the released folder says 0.3764, which belongs to an older model; its weights are those of the
# official file, which Stage B was trained with at 0.43.
LEFTOVER_SCALE, RELEASED_SCALE = 0.3764, 0.43


def to_ours(state: State) -> dict[str, LazyTensor]:
    """diffusers' tensors, or ComfyUI's with separate projections, under our names; ours stay as they are."""
    renames = [OUTPUT[::-1], CODEBOOK[::-1]]
    if "clip_txt_mapper.weight" not in state:  # Stage B has only one text mapper
        renames.append(TEXT_MAPPER[::-1])
    return packed({_renamed(name, renames): tensor for name, tensor in state.items()})


def to_theirs(name: str, state: State) -> dict[str, LazyTensor]:
    """The tensors of network `name` under diffusers' names."""
    renames = [OUTPUT, CODEBOOK, *([TEXT_MAPPER] if name == "stage_b" else [])]
    separate = separated(state, parent="attention")
    return {_renamed(key, renames): tensor for key, tensor in separate.items()}


def _renamed(name: str, renames: Sequence[tuple[str, ...]]) -> str:
    for old, new in renames:
        if old in name:
            return name.replace(old, new)
    return name


def config_to_theirs(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A network's config as diffusers writes it. ValueError for what its class cannot be built with."""
    if name not in CLASSES:
        raise ValueError(f"{name}: diffusers has no such network; expected one of {', '.join(CLASSES)}")
    head = {"_class_name": CLASSES[name], "_diffusers_version": VERSION}
    if name == "stage_a":
        fixed = {"in_channels": 3, "out_channels": 3, "up_down_scale_factor": 2}
        return {**head, **fixed, **{theirs: config[ours] for ours, theirs in VQGAN_KEYS.items()}}
    levels = len(config["c_hidden"])
    keys = UNET_KEYS | STAGE_KEYS[name]
    result = dict.fromkeys(key for stage in STAGE_KEYS.values() for key in stage.values())
    result |= {theirs: config[ours] for ours, theirs in keys.items()}
    for ours in ("nhead", "dropout"):
        result[keys[ours]] = per_level(ours, config[ours], levels)
    if name == "stage_c":
        result["switch_level"] = per_level("switch_level", config["switch_level"], levels - 1)
    down, up = (per_level("blocks", counts, levels) for counts in config["blocks"])
    repeats = config["block_repeat"] or [[1] * levels] * 2
    return {
        **head,
        **result,
        "down_num_layers_per_block": down,
        "up_num_layers_per_block": up,
        "down_blocks_repeat_mappers": repeats[0],
        "up_blocks_repeat_mappers": repeats[1],
        "block_types_per_layer": [
            [_block(letter) for letter in letters]
            for letters in per_level("level_config", config["level_config"], levels)
        ],
    }


def _block(letter: str) -> str:
    if letter not in BLOCKS:
        raise ValueError(f"level_config: diffusers has blocks for {', '.join(BLOCKS)} only, not {letter!r}")
    return BLOCKS[letter]


def config_to_ours(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config of diffusers' says of network `name`; keys that it lacks are left out.

    ValueError for kinds of blocks that our networks do not have.
    """
    if name == "stage_a":
        found = _taken(VQGAN_KEYS, config)
        leftover = found.get("scale_factor") == LEFTOVER_SCALE
        return {**found, "scale_factor": RELEASED_SCALE} if leftover else found
    found = _taken(UNET_KEYS | STAGE_KEYS[name], config)
    pairs = {"blocks": "num_layers_per_block", "block_repeat": "blocks_repeat_mappers"}
    for ours, theirs in pairs.items():
        both = [config.get(f"{way}_{theirs}") for way in ("down", "up")]
        if None not in both:
            found[ours] = both
    if "block_types_per_layer" in config:
        kinds = config["block_types_per_layer"]
        if unknown := {kind for level in kinds for kind in level} - LETTERS.keys():
            raise ValueError(f"block_types_per_layer: expected {', '.join(LETTERS)}, found {min(unknown)}")
        found["level_config"] = ["".join(LETTERS[kind] for kind in level) for level in kinds]
    return found


def _taken(keys: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    return {ours: config[theirs] for ours, theirs in keys.items() if config.get(theirs) is not None}
