"""Writes pipelines as diffusers reads them: prior (Stage C), decoder (Stages B and A), or both combined."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from modules.registry import build
from modules.weights.components import OnBytes, ignore, write_component, write_json, write_tokenizer
from modules.weights.layouts.diffusers import VERSION
from modules.weights.parts import Part

COMPRESSION = 42.67  # of the released Stage C
# Beside each component: the library and class that reads it. Versions that support these pipelines have
# Stage A's class in a library of its own.
CLASSES = {
    "prior": ("diffusers", "StableCascadeUNet"),
    "decoder": ("diffusers", "StableCascadeUNet"),
    "vqgan": ("wuerstchen", "PaellaVQModel"),
    "scheduler": ("diffusers", "DDPMWuerstchenScheduler"),
    "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    "feature_extractor": ("transformers", "CLIPImageProcessor"),
}
NETWORKS = {
    "prior": "stage_c",
    "decoder": "stage_b",
    "vqgan": "stage_a",
    "text_encoder": "text_encoder",
    "image_encoder": "image_encoder",
}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
PRIOR = ("prior", "scheduler", "text_encoder", "tokenizer", "image_encoder", "feature_extractor")
DECODER = ("decoder", "vqgan", "scheduler", "text_encoder", "tokenizer")
PICTURE_PROMPTS = ("image_encoder", "feature_extractor")  # the parts that a pipeline can do without
# All that diffusers' scheduler and pipelines can sample; other settings would silently draw something else.
SAMPLED = {"target": "EpsilonTarget", "schedule": "CosineSchedule", "input_scaler": "VPScaler"}


class Component(NamedTuple):
    """A folder of a pipeline, what is in it, and the stage that it serves."""

    folder: str
    kind: str
    stage: str


def components(kind: str) -> list[Component]:
    """The folders of a pipeline: "Prior", "Decoder" or "Combined"."""
    before = "prior_" if kind == "Combined" else ""
    prior = [Component(before + name, name, "stage_c") for name in PRIOR]
    decoder = [Component(name, name, "stage_b") for name in DECODER]
    return {"Prior": prior, "Decoder": decoder, "Combined": [*decoder, *prior]}[kind]


def pipeline_kind(parts: Mapping[str, Part]) -> str:
    """The pipeline that these networks make up. ValueError, saying what is missing, when they make none."""
    wanted = {"Prior": {"stage_c"}, "Decoder": {"stage_b", "stage_a"}}
    found = [kind for kind, needed in wanted.items() if needed & set(parts)]
    needed = set().union({"text_encoder"}, *(wanted[kind] for kind in found))
    if missing := sorted(needed - set(parts)):
        raise ValueError(
            f"a pipeline of {', '.join(parts)} also needs {', '.join(missing)}; or write a single network"
        )
    return found[0] if len(found) == 1 else "Combined"


def write_pipeline(
    folder: Path, parts: Mapping[str, Part], *, variant: str | None = None, on_bytes: OnBytes = ignore
) -> None:
    """Write the pipeline of these networks.

    parts: stage_c, or stage_b and stage_a, or all of them; text_encoder; image_encoder if there is one.
    ValueError for what diffusers cannot sample, or when a network or the tokenizer is missing.
    """
    kind = pipeline_kind(parts)
    index: dict[str, Any] = {"_class_name": f"StableCascade{kind}Pipeline", "_diffusers_version": VERSION}
    for stage in ("stage_c", "stage_b"):
        if stage in parts:
            check_sampling(parts[stage])
    for component in components(kind):
        if component.kind in PICTURE_PROMPTS and "image_encoder" not in parts:
            index[component.folder] = [None, None]
            continue
        index[component.folder] = list(CLASSES[component.kind])
        place = folder / component.folder
        if component.kind in NETWORKS:
            write_component(place, parts[NETWORKS[component.kind]], variant=variant, on_bytes=on_bytes)
        elif component.kind == "tokenizer":
            write_tokenizer(place, parts["text_encoder"])
        elif component.kind == "scheduler":
            write_json(place / "scheduler_config.json", scheduler_config(parts[component.stage]))
        else:
            write_json(place / "preprocessor_config.json", picture_config(parts["image_encoder"]))
    write_json(folder / "model_index.json", index | size_settings(kind, parts))


def diffusion_part(part: Part, key: str) -> Mapping[str, Any]:
    """What a network's header says of a part of its diffusion; {} where that is nothing that can be read."""
    found = (part.facts.get("gdf") or {}).get(key)
    return found if isinstance(found, Mapping) else {}


def other_diffusion(part: Part) -> str | None:
    """What of a network's diffusion is not what diffusers and ComfyUI sample, in words; None: nothing."""
    for key, expected in SAMPLED.items():
        found = diffusion_part(part, key).get("name", expected)
        if found != expected:
            return (
                f"{part.name}: trained with {found}; diffusers' pipelines and ComfyUI sample {expected} only"
            )
    return None


def check_sampling(part: Part) -> None:
    """Raise ValueError for a network of another diffusion than the one that diffusers samples."""
    if problem := other_diffusion(part):
        raise ValueError(f"{problem} (its network alone can be written)")


def head(kind: str) -> dict[str, Any]:
    return {"_class_name": CLASSES[kind][1], "_diffusers_version": VERSION}


def scheduler_config(part: Part) -> dict[str, Any]:
    return {**head("scheduler"), "s": diffusion_part(part, "schedule").get("s", 0.008), "scaler": 1.0}


def size_settings(kind: str, parts: Mapping[str, Part]) -> dict[str, float]:
    """How many pixels, and how many of Stage A's latents, a pixel of Stage C's latents stands for.

    The combined pipeline has no such settings: it only knows the released numbers.
    """
    pixels = compression(parts)
    if kind == "Prior":
        return {"resolution_multiple": pixels}
    if kind == "Decoder":
        # Rounded up: diffusers cuts off what this gives too little.
        return {"latent_dim_scale": math.ceil(pixels / 2 ** parts["stage_a"].config["levels"] * 100) / 100}
    return {}


def compression(parts: Mapping[str, Part]) -> float:
    """Pixels per latent pixel of Stage C: as it was trained, or as Stage B was, or as released."""
    if "stage_c" in parts:
        return parts["stage_c"].facts.get("compression", COMPRESSION)
    scale = parts["stage_b"].facts.get("compressor_scale")
    if scale is None or "semantic_compressor" not in parts:
        return COMPRESSION
    with torch.device("meta"):
        return build("semantic_compressor", parts["semantic_compressor"].config).factor / scale


def picture_config(part: Part) -> dict[str, Any]:
    """How pictures are made fit for the encoder: the shorter side scaled, the middle taken, normalised."""
    side = part.config["image_size"]
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "do_convert_rgb": True,
    }
