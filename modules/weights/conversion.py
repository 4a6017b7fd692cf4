"""From any layout to any other: gathers the networks of a file or folder and writes them again."""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modules.schema import nearest
from modules.weights.components import OnBytes, ignore
from modules.weights.files import fingerprint
from modules.weights.folders import weights_in_folder
from modules.weights.loading import contents
from modules.weights.parts import ENCODERS, Part, read_parts
from modules.weights.writers import ENDING, WRITERS, Settings

GROUPS = {  # the networks of diffusers' two pipelines, by their names
    "prior": ("stage_c", "text_encoder", "image_encoder"),
    # The compressor has no place in a pipeline, but says how many pixels its latents stand for.
    "decoder": ("stage_b", "stage_a", "text_encoder", "semantic_compressor"),
}


def gather(path: str | Path, ema: bool = True) -> dict[str, Part]:
    """All networks and encoders of a file or folder, by name.

    ema: a run's averaged weights where there are any. FileNotFoundError when there are none.
    """
    path = Path(path)
    if path.is_file():
        return read_parts(path, ema)
    found: dict[str, Part] = {}
    # An encoder's file without config or tokenizer is no use to a cascade, but can be converted.
    bare = {name: file for name in ENCODERS if (file := weights_in_folder(path, name))}
    for name, place in (bare | contents(path, ema)).items():
        file = weights_in_folder(place, name) if place.is_dir() else place
        parts = read_parts(file, ema) if file else {}
        found |= {name: parts[name]} if name in parts else {}
    if not found:
        raise FileNotFoundError(f"{path}: no weights of any known network in it")
    return found


def chosen(parts: Mapping[str, Part], names: Iterable[str]) -> dict[str, Part]:
    """Those of the networks that are named, singly or as a group; all when none is.

    ValueError for a name that is not there.
    """
    wanted: list[str] = []
    for name in names:
        if name not in parts and name not in GROUPS:
            raise ValueError(f"part: found {name!r}; {nearest(name, [*parts, *GROUPS])}")
        wanted += GROUPS.get(name, [name])
    return {name: part for name, part in parts.items() if not wanted or name in wanted}


def convert(
    parts: Mapping[str, Part], out: str | Path, settings: Settings, on_bytes: OnBytes = ignore
) -> list[str]:
    """Write networks to `out`, a file or folder that is not there yet; returns the names of those written.

    A single network goes to a file (official, ComfyUI) or to its folder (diffusers); several go to a folder,
    or, as far as they belong into one checkpoint of ComfyUI's, to a file.
    ValueError for what the layout cannot express.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out}: exists already; name another place, or remove it first")
    parts = {name: prepared(part, settings) for name, part in parts.items()}
    unfinished = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix if out.suffix == ENDING else ''}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = WRITERS[settings.layout](unfinished, parts, settings, on_bytes)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
    return written


def prepared(part: Part, settings: Settings) -> Part:
    """A part as it will be written: in the number format that is asked for, its origin among its facts."""
    converted: dict[str, Any] = {"to": settings.layout}
    if part.origin:
        converted |= {"from": part.origin.name, "fingerprint": fingerprint(part.origin)}
    if settings.dtype:
        converted["dtype"] = str(settings.dtype).removeprefix("torch.")
    state = {name: tensor.to(settings.dtype) for name, tensor in part.state.items()}
    return replace(part, state=state, facts={**part.facts, "converted": converted})
