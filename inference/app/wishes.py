"""What a visitor asks for, checked and turned into requests: it comes from strangers, whatever is offered.

Adapters are named, never located: only what the server has found itself becomes a path.
"""

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.adapters import ControlSettings, ImagePromptSettings, LoRASettings
from inference.app.offers import INPAINTING, Offers
from inference.app.settings import Bounds
from inference.app.words import Refused
from inference.settings import Request, StageSettings
from inference.sizes import MIN_SIDE_PX

MAX_RANDOM_SEED = 2**31  # easier to type again than larger ones
MAX_SEED = 2**63 - 1
TASKS = {  # what the page offers, and how it calls that
    "text_to_image": "Text",
    "image_to_image": "Image to image",
    "image_variation": "Variation",
    "inpaint": "Inpaint",
}
LEAST_WEIGHT, MOST_WEIGHT = -2.0, 2.0  # of a LoRA; also the most of other strengths


@dataclass(frozen=True)
class Wish:
    """The fields of the page as they come in. Pictures are paths of uploads that were verified.

    size: whether the sides count; else they are the model's own. loras: weights by name. control, adapter:
    names, "" for none.
    """

    task: str = "text_to_image"
    prompt: str = ""
    negative_prompt: str = ""
    seed: str = ""
    num_images: float = 1
    size: bool = False
    width_px: float = 0
    height_px: float = 0
    steps: float | None = None
    guidance: float | None = None
    decoder_steps: float | None = None
    decoder_guidance: float | None = None
    picture: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    loras: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""
    control_picture: Path | None = None
    control_scale: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    adapter: str = ""
    adapter_pictures: tuple[Path, ...] = ()
    adapter_scale: float = 1.0


def requests_of(wish: Wish, offers: Offers, bounds: Bounds) -> list[Request]:
    """The pictures that a wish asks for, with seeds that count up. Refused says what cannot be had."""
    if wish.task not in TASKS:
        raise Refused("Task: expected one of: " + ", ".join(TASKS))
    if wish.task != "text_to_image" and wish.picture is None:
        raise Refused("Picture: missing; upload the one to start from")
    if wish.task == "inpaint" and wish.mask is None:
        raise Refused("Picture: paint over what is to be drawn anew")
    settings: dict[str, Any] = {
        "task": wish.task,
        "prompt": text("Prompt", wish.prompt, bounds),
        "negative_prompt": text("Negative prompt", wish.negative_prompt, bounds),
        "stage_c": stage("", wish.steps, wish.guidance, bounds),
        "stage_b": stage("Decoder ", wish.decoder_steps, wish.decoder_guidance, bounds),
        "loras": loras_of(wish, offers),
        "controls": controls_of(wish, offers),
        "image_prompt": image_prompt_of(wish, offers),
        **sides(wish, bounds),
    }
    if wish.picture is not None:
        settings["image"] = str(wish.picture)
    if wish.mask is not None:
        settings["mask"] = str(wish.mask)
    if wish.task == "image_to_image" and wish.strength is not None:
        settings["strength"] = number("Strength", wish.strength, 0.01, 1)
    number_of = whole("Pictures", wish.num_images, 1, bounds.most_images)
    seed = seed_of(wish.seed, number_of)
    return [Request(seed=seed + i, **settings) for i in range(number_of)]


def text(name: str, value: object, bounds: Bounds) -> str:
    """A text that is not too long; letters that are none in any language are left out."""
    if not isinstance(value, str):
        raise Refused(f"{name}: expected text")
    if len(value) > bounds.most_letters:
        raise Refused(f"{name}: {len(value):,} letters; at most {bounds.most_letters:,} are read")
    return re.sub("[\\0\ud800-\udfff]", "", value).strip()


def number(name: str, value: object, least: float, most: float) -> float:
    """A finite number within bounds."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not least <= value <= most:  # type: ignore[operator]
        raise Refused(f"{name}: expected {least:g} to {most:g}, found {str(value)[:40]}")
    return float(value)  # type: ignore[arg-type]


def whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number within bounds."""
    found = number(name, value, least, most)
    if found != int(found):
        raise Refused(f"{name}: expected a whole number, found {found:g}")
    return int(found)


def seed_of(typed: object, number_of: int) -> int:
    """The seed that was typed, which leaves room to count up; one at random where nothing was."""
    words = str(typed if typed is not None else "").strip()
    if not words:
        return random.randrange(MAX_RANDOM_SEED)
    if not re.fullmatch("[0-9]{1,19}", words) or int(words) > MAX_SEED - number_of:
        raise Refused(
            f"Seed: expected a whole number from 0 on, or nothing for one at random; found “{words[:40]}”"
        )
    return int(words)


def sides(wish: Wish, bounds: Bounds) -> dict[str, int]:
    """Width and height where they were asked for."""
    if not wish.size:
        return {}
    return {
        "width_px": whole("Width", wish.width_px, MIN_SIDE_PX, bounds.most_side_px),
        "height_px": whole("Height", wish.height_px, MIN_SIDE_PX, bounds.most_side_px),
    }


def stage(which: str, steps: object, guidance: object, bounds: Bounds) -> StageSettings:
    """How a stage is to be sampled; None leaves it to its weights."""
    return StageSettings(
        steps=None if steps is None else whole(f"{which}Steps".capitalize(), steps, 1, bounds.most_steps),
        guidance=None if guidance is None else number(f"{which}Guidance".capitalize(), guidance, 0, 30),
    )


def chosen(what: str, name: object, offered: Mapping[str, str]) -> str:
    """The path of an adapter by its name; Refused unless it is on offer."""
    if not isinstance(name, str) or name not in offered:
        names = ", ".join(offered) or "nothing"
        raise Refused(f"{what}: “{str(name)[:80]}” is not offered here; there is: {names}")
    return offered[name]


def loras_of(wish: Wish, offers: Offers) -> tuple[LoRASettings, ...]:
    """The LoRAs of a wish."""
    return tuple(
        LoRASettings(
            chosen("LoRA", name, offers.loras), number(f"LoRA {name}", weight, LEAST_WEIGHT, MOST_WEIGHT)
        )
        for name, weight in wish.loras.items()
    )


def controls_of(wish: Wish, offers: Offers) -> tuple[ControlSettings, ...]:
    """The ControlNet of a wish; without a picture of its own it looks at the one to start from."""
    if not wish.control:
        return ()
    weights = chosen("ControlNet", wish.control, offers.controlnets)
    if offers.filters.get(wish.control) == INPAINTING:
        if wish.task != "inpaint":
            raise Refused(f"ControlNet: {wish.control} is for Inpaint; choose that, or another ControlNet")
    elif wish.control_picture is None and wish.picture is None:
        raise Refused("ControlNet: upload a picture for it to look at")
    start, end = number("From", wish.control_start, 0, 1), number("To", wish.control_end, 0, 1)
    if not start < end:
        raise Refused(f"ControlNet: To ({end:g}) has to be more than From ({start:g})")
    own = None if offers.filters.get(wish.control) == INPAINTING else wish.control_picture
    scale = number("ControlNet strength", wish.control_scale, 0, MOST_WEIGHT)
    return (ControlSettings(weights, None if own is None else str(own), False, scale, start, end),)


def image_prompt_of(wish: Wish, offers: Offers) -> ImagePromptSettings:
    """The image prompt of a wish."""
    if not wish.adapter_pictures:
        return ImagePromptSettings()
    weights = chosen("Image prompt", wish.adapter, offers.ip_adapters)
    scale = number("Image prompt strength", wish.adapter_scale, 0, MOST_WEIGHT)
    return ImagePromptSettings(weights, tuple(map(str, wish.adapter_pictures)), scale)
