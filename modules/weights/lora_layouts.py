"""The LoRA layouts whose names say which layers they change: a table, one reader and one writer for all."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from modules.adapters.lora_state import Factors, LoRAState, split_projections
from modules.weights import lora_names

Tensors = dict[str, Tensor]


class Layout(NamedTuple):
    """stage_c, stage_b, text_encoder: what stands before the names; None: the layout has no place for them.

    flat: dots become underscores. spell: how attention's projections are called. ends: how the names of
    down, up and DoRA's magnitudes end. alpha: whether it is written ("kept"), multiplied into up
    ("folded"), or only stands in peft's metadata ("metadata"). depthwise: how convolutions of single channels
    are held: as all others ("plain"), with a whole weight in every rank of down ("whole"), or not at all.
    """

    stage_c: str
    stage_b: str | None
    text_encoder: str | None
    flat: bool = False
    spell: Callable[[str], str] = str
    ends: tuple[str, str, str] = (".lora_down.weight", ".lora_up.weight", ".dora_scale")
    alpha: str = "kept"
    depthwise: str = "plain"

    def prefix(self, part: str, network: str) -> str | None:
        """What stands before the names of a part of a LoRA for that network."""
        if part == "text_encoder":
            return self.text_encoder
        return self.stage_b if network == "stage_b" else self.stage_c


AB = (".lora_A.weight", ".lora_B.weight", ".dora_scale")
PEFT = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector")
THEIRS, NUMBERED = lora_names.diffusers_attention, lora_names.numbered_attention
LAYOUTS = {
    "comfyui": Layout("diffusion_model.", "diffusion_model.", "text_encoders.clip_g.transformer."),
    "kohya": Layout("lora_unet_", "lora_unet_", "lora_te_", flat=True),
    "peft": Layout("", "", None, spell=THEIRS, ends=PEFT, alpha="metadata", depthwise=""),
    "diffusers": Layout(
        "prior.", "decoder.", "text_encoder.", spell=THEIRS, ends=PEFT, alpha="metadata", depthwise=""
    ),
    "onetrainer_legacy": Layout("lora_prior_unet_", None, "lora_prior_te_", flat=True, depthwise="whole"),
    "onetrainer_kohya": Layout("lora_unet_", None, "lora_te_", flat=True, spell=NUMBERED, depthwise="whole"),
    "onetrainer_diffusers": Layout(
        "prior.", None, "text_encoder.", spell=THEIRS, ends=AB, alpha="folded", depthwise="whole"
    ),
    "onetrainer_original": Layout("", None, None, spell=NUMBERED, ends=AB, depthwise="whole"),
    "onetrainer_comfy": Layout("diffusion_model.", None, None, spell=NUMBERED, ends=AB, depthwise="whole"),
}
ENDS = {
    "down": r"\.lora_down\.weight|\.lora_A(\.default)?\.weight|[._]lora\.down\.weight",
    "up": r"\.lora_up\.weight|\.lora_B(\.default)?\.weight|[._]lora\.up\.weight",
    "alpha": r"\.alpha",
    "dora_scale": r"\.dora_scale|\.lora_magnitude_vector(\.default)?(\.weight)?",
}
TOKEN = re.compile(r"bundle_emb\.(?P<text>.+)\.(clip_g|string_to_param\.\*)")
OUTPUT_TOKEN = re.compile(r"bundle_emb\.(?P<text>.+)\.clip_g_out")


def read_named(tensors: Mapping[str, Tensor]) -> tuple[LoRAState, list[str]]:
    """The LoRA in tensors of any of the layouts, and the names that belong to none of them."""
    state, unknown = LoRAState(), []
    found: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if token := TOKEN.fullmatch(key):
            state.tokens[token["text"]] = tensor
        elif token := OUTPUT_TOKEN.fullmatch(key):
            state.output_tokens[token["text"]] = tensor
        elif place := find_place(key):
            part, name, leaf = place
            is_peft = leaf == "dora_scale" and "magnitude_vector" in key
            found.setdefault((part, name), {})[leaf] = from_peft_magnitude(tensor) if is_peft else tensor
        else:
            unknown.append(key)
    for (part, name), leaves in found.items():
        if {"down", "up"} <= leaves.keys():
            state.parts[part].update(split_projections(name, Factors(**leaves)))
        else:
            unknown.append(name)
    return state, unknown


def find_place(key: str) -> tuple[str, str, str] | None:
    """Part, layer and leaf (down, up, alpha, dora_scale) that a tensor's name means."""
    for leaf, end in ENDS.items():
        if match := re.fullmatch(rf"(?P<stem>.+?)({end})", key):
            place = lora_names.parse(match["stem"])
            return None if place is None else (*place, leaf)
    return None


def write_named(state: LoRAState, layout: str, network: str) -> Tensors:
    """The tensors of a LoRA under the names of a layout. network: stage_c or stage_b.

    ValueError for what the layout has no place for.
    """
    style = LAYOUTS[layout]
    tensors: Tensors = {}
    for part, layers in state.parts.items():
        for name, factors in layers.items():
            prefix = style.prefix(part, network)
            if prefix is None:
                whose = network if part == "unet" else "the text encoder"
                raise ValueError(f"LoRA: the layout {layout} has no place for layers of {whose}")
            if name.endswith("depthwise"):
                factors = depthwise(name, factors, style)
            tensors |= leaves(prefix + spelt(name, style, part, network), factors, style)
    tensors |= {f"bundle_emb.{text}.clip_g": vectors for text, vectors in state.tokens.items()}
    return tensors | {f"bundle_emb.{text}.clip_g_out": each for text, each in state.output_tokens.items()}


def spelt(name: str, style: Layout, part: str, network: str) -> str:
    """A layer's name as a layout writes it, without the prefix."""
    if part == "unet":
        name = style.spell(name)
        if style.spell is THEIRS and network == "stage_b":
            name = re.sub(r"^clip_mapper\b", "clip_txt_pooled_mapper", name)
    return name.replace(".", "_") if style.flat else name


def leaves(stem: str, factors: Factors, style: Layout) -> Tensors:
    """The tensors of one layer."""
    down, up, dora = style.ends
    tensors = {stem + down: factors.down, stem + up: factors.up}
    if style.alpha == "folded":
        tensors[stem + up] = factors.up * scale(factors)
    elif style.alpha == "kept" and factors.alpha is not None:
        tensors[f"{stem}.alpha"] = factors.alpha
    if factors.dora_scale is not None:
        peft = style.ends is PEFT
        tensors[stem + dora] = to_peft_magnitude(stem, factors) if peft else factors.dora_scale
    return tensors


def depthwise(name: str, factors: Factors, style: Layout) -> Factors:
    """Factors of a convolution of single channels in the layout's form.

    Back from OneTrainer's form there is no way: it is read as it is, and means the same. ValueError where a
    layout has none (peft's own form mixes channels, which such a convolution cannot).
    """
    if not style.depthwise:
        raise ValueError(f"LoRA: {name}: peft has no form for depthwise convolutions; leave them out")
    if style.depthwise == "plain" or factors.up.shape[0] == 1:
        return factors
    down = factors.up.flatten(1).t()[:, :, None, None] * factors.down  # [rank, C, height, width]
    return factors._replace(down=down, up=factors.up.new_ones(1, len(down), 1, 1))


def scale(factors: Factors) -> float:
    """alpha / rank."""
    return 1.0 if factors.alpha is None else float(factors.alpha) / factors.down.shape[0]


def unfolded(factors: Factors, alpha: float) -> Factors:
    """Factors whose `up` had been multiplied by alpha / rank; exact where that is a power of two.

    At alpha 0 it stays 0: the change counts nothing.
    """
    rank = factors.down.shape[0]
    return factors._replace(up=factors.up / (alpha / rank or 1.0), alpha=torch.tensor(alpha))


def to_peft_magnitude(stem: str, factors: Factors) -> Tensor:
    """Magnitudes by output as peft shapes them: [out], of a convolution [1, out, 1, 1]."""
    magnitude = factors.dora_scale
    assert magnitude is not None
    if magnitude.shape[0] != factors.up.shape[0]:
        raise ValueError(f"LoRA: {stem}: peft has magnitudes by output only, these are by input")
    return magnitude.transpose(0, 1) if magnitude.ndim == 4 else magnitude.flatten()


def from_peft_magnitude(magnitude: Tensor) -> Tensor:
    """[out, 1] or [out, 1, 1, 1]."""
    return magnitude.transpose(0, 1) if magnitude.ndim == 4 else magnitude.reshape(-1, 1)
