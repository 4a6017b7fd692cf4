"""The settings that pictures carry, read back into the fields of the page.

A picture may come from anybody: of what it says only known fields count, within the page's bounds, and no
path in it is followed. Adapters are recognised by their names among those that the page offers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from inference.app.offers import Offers
from inference.app.settings import Bounds
from inference.app.uploads import check_size
from inference.app.wishes import LEAST_WEIGHT, MOST_WEIGHT, TASKS
from inference.app.words import Refused, last_part
from inference.facts import read_facts
from inference.pictures import open_picture
from inference.settings import Request, StageSettings
from inference.sizes import MIN_SIDE_PX
from modules.schema import ConfigError

FOREIGN = "this picture carries no settings of ours; take a PNG that Kaskade has made"


@dataclass(frozen=True)
class Remembered:
    """Fields of the page by name, as `Wish` has them; and what could not be taken over."""

    fields: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def facts_in(path: str | Path) -> dict[str, Any]:
    """How an uploaded picture was made; Refused where it does not say so."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            check_size(opened, "Picture")
        return open_picture(path).facts
    except Refused:
        raise
    except (ValueError, OSError, SyntaxError, RecursionError, Image.DecompressionBombError):
        raise Refused(FOREIGN) from None


def remembered(facts: Mapping[str, Any], offers: Offers, bounds: Bounds) -> Remembered:
    """The fields of the page for a picture like the one with these facts. Refused for what is not ours."""
    try:
        request, _ = read_facts(facts)
    except (ConfigError, ValueError, TypeError, RecursionError):
        raise Refused(FOREIGN) from None
    notes: list[str] = []
    if request.task not in TASKS:
        raise Refused(f"it was made by the task {request.task[:40]!r}, which this page does not offer")
    fields: dict[str, Any] = {
        "task": request.task,
        "prompt": request.prompt[: bounds.most_letters],
        "negative_prompt": request.negative_prompt[: bounds.most_letters],
        "seed": str(request.seed),
        "size": request.width_px is not None and request.height_px is not None,
        **{name: side(getattr(request, name), bounds) for name in ("width_px", "height_px")},
        **stage_fields("", request.stage_c, bounds),
        **stage_fields("decoder_", request.stage_b, bounds),
        "strength": request.strength if request.strength is not None else 0.6,
        **adapter_fields(request, offers, notes),
    }
    if request.image is not None:
        notes.append("upload the picture to start from again")
    return Remembered(fields, notes)


def side(px: int | None, bounds: Bounds) -> int:
    """A side within bounds; the model's own where there is none."""
    return min(max(px or bounds.own_side_px, MIN_SIDE_PX), bounds.most_side_px)


def stage_fields(prefix: str, settings: StageSettings, bounds: Bounds) -> dict[str, Any]:
    """Steps and guidance of a stage; of guidance that changes on the way the first."""
    guidance = settings.guidance[0] if isinstance(settings.guidance, tuple) else settings.guidance
    steps = None if settings.steps is None else min(max(settings.steps, 1), bounds.most_steps)
    return {
        f"{prefix}steps": steps,
        f"{prefix}guidance": None if guidance is None else min(max(guidance, 0), 30),
    }


def adapter_fields(request: Request, offers: Offers, notes: list[str]) -> dict[str, Any]:
    """LoRAs, the ControlNet and the image prompt, as far as they are on offer here."""
    loras = {}
    for lora in request.loras:
        if name := same(lora.weights, offers.loras, notes):
            loras[name] = min(max(lora.weight, LEAST_WEIGHT), MOST_WEIGHT)
    fields: dict[str, Any] = {"loras": loras, "control": "", "adapter": ""}
    for control in request.controls[:1]:
        if name := same(control.weights, offers.controlnets, notes):
            fields["control"] = name
            fields["control_scale"] = min(max(control.scale, 0), MOST_WEIGHT)
            fields["control_start"], fields["control_end"] = control.start, control.end
            if control.image is not None:
                notes.append("upload the ControlNet's picture again")
    if request.image_prompt and (name := same(request.image_prompt.weights or "", offers.ip_adapters, notes)):
        fields["adapter"] = name
        fields["adapter_scale"] = min(max(request.image_prompt.scale, 0), MOST_WEIGHT)
        notes.append("upload the image prompt's pictures again")
    return fields


def same(path: str, offered: Mapping[str, str], notes: list[str]) -> str | None:
    """The name under which the same adapter is on offer: by its path as a text, or the end of it."""
    for name, ours in offered.items():
        if ours == path:
            return name
    end = last_part(path)
    for name in offered:
        if name.rpartition("/")[2] == end:
            return name
    notes.append(f"“{end[:60]}” is not offered here and was left out")
    return None
