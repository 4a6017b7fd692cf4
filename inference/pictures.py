"""Pictures as PNG files that say how they were made."""

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from modules.pictures import save_png
from modules.whole_files import settle

KEY = "kaskade"  # JSON: everything that is needed to make the picture again
READABLE_KEY = "parameters"  # the same for people, in the layout that other picture tools read
MAX_SLUG_LENGTH = 48


@dataclass(frozen=True)
class Picture:
    """A picture and the plain data from which it can be made again."""

    image: Image.Image
    facts: dict[str, Any]


def readable(facts: Mapping[str, Any]) -> str:
    """Prompt, negative prompt and main settings as text, one line each; only of stages that took part."""
    c, b = facts["stage_c"], facts["stage_b"]
    settings = {
        "Steps": c["steps"],
        "Sampler": c["sampler"],
        "CFG scale": c["guidance"],
        "Seed": facts["seed"],
        "Size": f"{facts['width_px']}x{facts['height_px']}",
        "Decoder steps": b["steps"],
        "Decoder sampler": b["sampler"],
        "Decoder CFG scale": b["guidance"],
        "LoRAs": _named(facts.get("loras", ()), "weight"),
        "ControlNets": _named(facts.get("controls", ()), "scale"),
        "Task": facts["task"],
        "Model": facts["run"] or facts["weights"]["stage_c"],
        "Version": f"Kaskade {facts['versions']['kaskade']}",
    }
    last = ", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None)
    negative = facts["negative_prompt"]
    return "\n".join([facts["prompt"], *([f"Negative prompt: {negative}"] if negative else []), last])


def _named(adapters: Sequence[Mapping[str, Any]], strength: str) -> str | None:
    """Names of adapters and how strongly they count, such as "lora:0.8 other:1.0"; None for no adapters."""
    return " ".join(f"{Path(each['weights']).name}:{each[strength]}" for each in adapters) or None


def write_picture(picture: Picture, folder: Path) -> Path:
    """Write a picture as a PNG under a name of its own, made from prompt and seed; returns the path."""
    name = f"{slug(picture.facts['prompt'])}_{picture.facts['seed']}"
    return write_png(picture.image, folder, name, _text_of(picture))


def write_picture_as(picture: Picture, path: Path) -> Path:
    """Write a picture as just that PNG, never half; returns path. For names that no other process uses."""
    save_png(picture.image, path, _text_of(picture))
    return path


def _text_of(picture: Picture) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(KEY, json.dumps(picture.facts))
    info.add_text(READABLE_KEY, readable(picture.facts))
    return info


def write_png(
    image: Image.Image, folder: Path, name: str, info: PngImagePlugin.PngInfo | None = None
) -> Path:
    """Write <name>.png, or <name>_2.png and so on when that is taken; never over another file, never half.

    The hidden file that is written first also reserves the name against other processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / (f"{name}.png" if number == 1 else f"{name}_{number}.png")
        temporary = path.with_name(f".{path.name}.part")
        try:
            file = temporary.open("xb")
        except FileExistsError:
            continue
        try:
            with file:
                if path.exists():
                    continue
                image.save(file, format="PNG", pnginfo=info)
                settle(file)
            os.replace(temporary, path)
            return path
        finally:
            temporary.unlink(missing_ok=True)
    raise AssertionError("there is always a next number")


def slug(prompt: str) -> str:
    """The prompt as part of a file name: letters and digits of any script, hyphens between."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:MAX_SLUG_LENGTH].rstrip("-") or "picture"


def open_picture(path: str | Path) -> Picture:
    """Read back a picture and how it was made.

    Raises FileNotFoundError, or ValueError when the file is no picture or carries nothing of ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"the picture {path} does not exist")
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
            text = opened.info.get(KEY, "null")  # after the pixels, behind which text may stand
        facts = json.loads(text)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture of ours ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f"{path} does not say how it was made; expected a PNG with a text entry '{KEY}'")
    return Picture(image, facts)
