"""How the tools call the layers of a LoRA: dotted or with underscores only, and the parts of attention."""

import re

from modules.adapters.lora_state import PROJECTIONS

# Words that module names consist of, besides numbers; in names with underscores only, the longest counts.
TOP_WORDS = (
    *("clip_txt_mapper", "clip_txt_pooled_mapper", "clip_img_mapper", "clip_mapper", "effnet_mapper"),
    *("pixels_mapper", "embedding", "down_blocks", "down_downscalers", "down_repeat_mappers", "up_blocks"),
    *("up_upscalers", "up_repeat_mappers", "clf"),
)
INNER_WORDS = (
    *("depthwise", "channelwise", "mapper", "mapper_sca", "mapper_crp", "attention", "kv_mapper", "attn"),
    *("to_q", "to_k", "to_v", "to_out", "in_proj", "out_proj", "blocks"),
)
TEXT_TOP_WORDS = ("text_model", "text_projection")
TEXT_INNER_WORDS = (
    *("encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "mlp", "fc1", "fc2"),
)
PREFIXES = {  # before a layer's name: the part that it belongs to
    "diffusion_model.": "unet",
    "prior.": "unet",
    "decoder.": "unet",
    "unet.": "unet",
    "lora_prior_unet_": "unet",
    "lora_unet_": "unet",
    "text_encoders.clip_g.transformer.": "text_encoder",
    "text_encoder.": "text_encoder",
    "lora_prior_te_": "text_encoder",
    "lora_te_": "text_encoder",
}
WRAPPER = "base_model.model."  # what peft's own model class puts before every name
STAGE_B_MARKS = (
    *("effnet_mapper", "pixels_mapper", "clip_mapper", "up_repeat_mappers", "down_repeat_mappers"),
    "decoder.",  # before the names in files of diffusers' pipelines
)


def parse(stem: str) -> tuple[str, str] | None:
    """(part, layer's dotted name) of a name in any of the tools' spellings; None when it is in none.

    Attention's projections come out as attention.attn.to_q, to_k, to_v and out_proj, or as in_proj when the
    file keeps the first three together.
    """
    stem = stem.removeprefix(WRAPPER)
    prefix = next((prefix for prefix in PREFIXES if stem.startswith(prefix)), "")
    name = stem.removeprefix(prefix)
    part = PREFIXES.get(prefix, "text_encoder" if name.startswith(TEXT_TOP_WORDS) else "unet")
    top, inner = (TOP_WORDS, INNER_WORDS) if part == "unet" else (TEXT_TOP_WORDS, TEXT_INNER_WORDS)
    dotted = with_dots(name, (*top, *inner)) if prefix.endswith("_") else name
    if dotted is None or dotted.split(".")[0] not in top:
        return None
    return part, (our_attention(dotted) if part == "unet" else dotted)


def with_dots(name: str, words: tuple[str, ...]) -> str | None:
    """A name made of words and numbers joined by underscores, joined by dots; None when it is not that."""
    longest_first = "|".join(sorted(words, key=len, reverse=True))
    if not re.fullmatch(rf"(?:(?:{longest_first}|\d+)(?:_|$))+", name):
        return None
    return ".".join(re.findall(rf"({longest_first}|\d+)(?:_|$)", name))


def our_attention(name: str) -> str:
    """A dotted name with attention's projections called as in our networks."""
    name = re.sub(r"\battention\.(?!attn\.)", "attention.attn.", name)
    name = name.replace("attn.to_out.0", "attn.out_proj").replace("attn.in_proj_weight", "attn.in_proj")
    return re.sub(r"attn\.in_proj\.([012])$", lambda found: f"attn.{PROJECTIONS[int(found[1])]}", name)


def diffusers_attention(name: str) -> str:
    """As diffusers calls them: attention.to_q, …, attention.to_out.0."""
    return name.replace("attention.attn.", "attention.").replace("attention.out_proj", "attention.to_out.0")


def numbered_attention(name: str) -> str:
    """As OneTrainer calls them: attention.attn.in_proj.0, .1, .2 and out_proj."""
    for number, projection in enumerate(PROJECTIONS):
        name = name.replace(f"attention.attn.{projection}", f"attention.attn.in_proj.{number}")
    return name


def network_of(names: list[str]) -> str:
    """Whose layers these are, as far as names and keys tell: stage_b by what only it has, else stage_c."""
    deep = any(re.match(r"(down|up)_blocks\.[23]\.", name) for name in names)
    return "stage_b" if deep or any(name.startswith(STAGE_B_MARKS) for name in names) else "stage_c"
