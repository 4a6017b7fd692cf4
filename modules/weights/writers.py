"""What `conversion` writes, for each layout: which networks go into which file or folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modules.schema import nearest
from modules.weights.components import OnBytes, header_of, write_component, write_file, write_tokenizer
from modules.weights.layouts import comfyui
from modules.weights.lazy import State
from modules.weights.parts import ENCODERS, NATIVE, Part
from modules.weights.pipelines import NETWORKS, write_pipeline

RELEASED_STEMS = {"semantic_compressor": "effnet_encoder"}
CHECKPOINT_STEM, ENDING = "stable_cascade_", ".safetensors"


@dataclass(frozen=True)
class Settings:
    """How networks are written.

    layout: one of WRITERS. dtype: number format of the floating weights; None leaves them. variant: a word in
    the names of diffusers' files, such as bf16.
    """

    layout: str
    dtype: torch.dtype | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        if self.layout not in WRITERS:
            raise ValueError(f"layout: found {self.layout!r}; {nearest(self.layout, WRITERS)}")


def write_official(out: Path, parts: Mapping[str, Part], settings: Settings, on_bytes: OnBytes) -> list[str]:
    """A file for each network, called as released; encoders in folders."""
    encoders = [part for name, part in parts.items() if name in ENCODERS]
    files = {
        RELEASED_STEMS.get(name, name): (part.state, header_of(part, NATIVE))
        for name, part in parts.items()
        if name not in ENCODERS
    }
    write_files(out, files, on_bytes, folder=bool(encoders))
    for part in encoders:
        write_encoder(out / part.name, part, settings, on_bytes)
    return list(parts)


def write_comfyui(out: Path, parts: Mapping[str, Part], settings: Settings, on_bytes: OnBytes) -> list[str]:
    """A checkpoint for each U-Net and what belongs beside it; any other network as released."""
    files, written = {}, []
    for unet in (name for name in comfyui.UNETS if name in parts):
        names = [name for name in (unet, *comfyui.COMPANIONS[unet]) if name in parts]
        headers = {name: header_of(parts[name], "comfyui") for name in names}
        header = headers[unet] if len(names) == 1 else {"layout": "comfyui", "parts": headers}
        state = comfyui.checkpoint(unet, {name: parts[name].state for name in names})
        files[CHECKPOINT_STEM + unet] = (state, header)
        written += names
    for name in (name for name in parts if name not in written):
        files[RELEASED_STEMS.get(name, name)] = (parts[name].state, header_of(parts[name], NATIVE))
    write_files(out, files, on_bytes)
    return list(parts)


def write_diffusers(out: Path, parts: Mapping[str, Part], settings: Settings, on_bytes: OnBytes) -> list[str]:
    """One network's folder, or a pipeline, which has no place for other networks than those of its own."""
    expect(out, one_file=False)
    if len(parts) > 1:
        write_pipeline(out, parts, variant=settings.variant, on_bytes=on_bytes)
        return [name for name in parts if name in NETWORKS.values()]
    (part,) = parts.values()
    if part.name in ENCODERS:
        write_encoder(out, part, settings, on_bytes)
    else:
        write_component(out, part, variant=settings.variant, on_bytes=on_bytes)
    return [part.name]


WRITERS = {"official": write_official, "diffusers": write_diffusers, "comfyui": write_comfyui}


def write_files(
    out: Path, files: Mapping[str, tuple[State, Mapping[str, Any]]], on_bytes: OnBytes, folder: bool = False
) -> None:
    """Write tensors and headers: a single one to the file `out`, several, or with `folder`, to a folder."""
    expect(out, one_file=len(files) == 1 and not folder)
    if out.suffix == ENDING:
        ((state, header),) = files.values()
        write_file(out, state, header, on_bytes)
        return
    out.mkdir()
    for stem, (state, header) in files.items():
        write_file(out / f"{stem}{ENDING}", state, header, on_bytes)


def expect(out: Path, one_file: bool) -> None:
    """Raise ValueError unless `out` is called as what is written to it."""
    if (out.suffix == ENDING) != one_file:
        kind = f"a file, whose name ends in {ENDING}" if one_file else "a folder"
        raise ValueError(f"output: expected {kind}; found a name that ends in {out.suffix or 'no ending'}")


def write_encoder(folder: Path, part: Part, settings: Settings, on_bytes: OnBytes) -> None:
    """An encoder's folder, a text encoder's with the tokenizer in it."""
    write_component(folder, part, variant=settings.variant, on_bytes=on_bytes)
    if part.name == "text_encoder":
        write_tokenizer(folder, part)
