"""What a model card says of the use and the licence of what a recipe trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from train.reports.card_names import called

RELEASED = (
    *("stage_a", "stage_b", "stage_b_lite", "stage_c", "stage_c_lite", "effnet_encoder", "previewer"),
    *("controlnet/canny", "controlnet/inpainting", "controlnet/super_resolution"),
)
RELEASED_NAME = "stabilityai/stable-cascade"
RELEASED_LICENCE = "Stability AI Non-Commercial Research Community License Agreement"
RELEASED_LICENCE_LINK = "https://huggingface.co/stabilityai/stable-cascade/blob/main/LICENSE"
PROMPT = '"a red circle"'


class About(NamedTuple):
    """A recipe in words. learned: the networks whose files are its result."""

    title: str
    what: str
    tags: tuple[str, ...] = ()


ABOUT = {
    "stage_a": About(
        "Stage A (VQGAN)", "turns pictures into latents of a quarter of their size and back", ("vqgan",)
    ),
    "stage_b": About(
        "Stage B with its semantic compressor",
        "decodes the semantic compressor's small latents into those of Stage A",
        ("diffusion",),
    ),
    "stage_c": About(
        "Stage C", "draws the semantic compressor's latents from text", ("text-to-image", "diffusion")
    ),
    "previewer": About("a previewer", "shows the semantic compressor's latents as small pictures"),
    "lora": About("a LoRA", "changes what a base network draws", ("lora", "text-to-image")),
    "controlnet": About(
        "a ControlNet", "lets a picture say where things are", ("controlnet", "text-to-image")
    ),
    "ip_adapter": About(
        "an IP-Adapter", "lets a picture stand in a prompt's place", ("ip-adapter", "image-to-image")
    ),
    "lcm": About(
        "a few-step copy", "draws in a few steps what its teacher draws in many", ("lcm", "text-to-image")
    ),
}
WRAPPERS = ("lora", "controlnet", "ip_adapter", "lcm")


def commands(recipe: str, base: str, run: str, cascade: str) -> list[str]:
    """Commands that use a run. base: the recipe that an adapter is of; run, cascade: folders, the second with
    the runs of a whole cascade."""
    plain = f"python -m inference prompt={PROMPT} run={cascade}"
    rebuild = f"python -m inference task=reconstruct image=photo.png run={cascade}"
    network = "stage_b" if base == "stage_b" else "stage_c"
    convert = "python -m scripts.convert_checkpoint"
    whole = [
        f"{convert} {cascade} {Path(cascade).name}_{kind} --to {kind}" for kind in ("diffusers", "comfyui")
    ]
    return {
        "stage_a": [f"{rebuild} weights.stage_a={run}"],
        "stage_b": [f"{rebuild} weights.stage_b={run} weights.semantic_compressor={run}", *whole],
        "stage_c": [f"{plain} weights.stage_c={run}", *whole],
        "previewer": [
            f"python -m inference task=preview prompt={PROMPT} run={cascade} weights.previewer={run}"
        ],
        "lora": [
            f"{plain} 'loras=[{run}]'",
            *(f"{convert} {run} lora_{kind}.safetensors --to {kind}" for kind in ("comfyui", "kohya")),
        ],
        "controlnet": [f"{plain} 'controls=[{{weights: {run}, image: photo.png}}]'"],
        "ip_adapter": [
            f"python -m inference run={cascade} 'image_prompt={{weights: {run}, images: [photo.png]}}'"
        ],
        "lcm": [f"{plain} weights.{network}={run}"],
    }.get(recipe, [])


def bases(model: Mapping[str, Any]) -> dict[str, str]:
    """The files or folders that the networks of a run began from, by network."""
    return {
        name: str(entry["weights"])
        for name, entry in model.items()
        if isinstance(entry, Mapping) and entry.get("weights")
    }


def is_released(path: str) -> bool:
    """Whether a file has the name of one of the released ones, and is none that a run has exported."""
    stem = path.replace("\\", "/").removesuffix(".safetensors")
    if not path.endswith(".safetensors") or stem.split("/")[-2:-1] == ["weights"]:
        return False
    return any(stem == name or stem.endswith(f"/{name}") for name in RELEASED)


def licence(model: Mapping[str, Any]) -> list[str]:
    """Paragraphs on whose licences apply."""
    found = bases(model)
    told = [
        "The licence of these weights is not chosen yet: whoever publishes them names it here and in the"
        " first lines of this file. The code that made them is under the MIT licence, which does not"
        " cover weights."
    ]
    if released := sorted({called(path) for path in found.values() if is_released(path)}):
        told.append(
            f"It goes on from released weights ({', '.join(released)} of {RELEASED_NAME}). They come under"
            f" the {RELEASED_LICENCE}, which applies to what is made from them, too."
        )
    if others := sorted({called(path) for path in found.values() if not is_released(path)}):
        told.append(f"It was made with other weights, whose licences apply, too: {', '.join(others)}.")
    return told
