"""The networks that a file holds, whatever layout it is in, under our names."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modules.network import plain
from modules.registry import NETWORKS
from modules.weights import official
from modules.weights.folders import tokenizer_folder
from modules.weights.layouts import clip, comfyui, diffusers
from modules.weights.lazy import LazyTensor, State
from modules.weights.plain_data import read_json
from modules.weights.sources import open_source

ENCODERS = ("text_encoder", "image_encoder")
NATIVE = "official"  # the layout of files whose tensors have our names already


@dataclass(frozen=True)
class Part:
    """One network of a file.

    name: as in NETWORKS, or one of ENCODERS. config: constructor keywords, or transformers' config of an
    encoder. facts: what our header says beside those. tokenizer: the folder of the tokenizer beside it.
    origin: the file that it was read from.
    """

    name: str
    config: dict[str, Any]
    state: dict[str, LazyTensor]
    facts: dict[str, Any] = field(default_factory=dict)
    tokenizer: Path | None = None
    origin: Path | None = None


def read_parts(file: str | Path, ema: bool = True) -> dict[str, Part]:
    """The networks in a file, by name; nothing of them is read yet but names and shapes.

    Files with a header are taken at its word. Others are recognised by their tensors, and a config.json
    beside them is believed where it says more. ValueError, one line, for tensors that are not understood.
    """
    file = Path(file)
    source = open_source(file, ema)
    try:
        if source.header.get("layout", NATIVE) == NATIVE and "network" in source.header:
            parts = [part_of(source.header, source.state)]
        else:
            headers = source.header.get("parts", {})
            parts = [identified(group, headers, source.header) for group in comfyui.groups(source.state)]
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if len(parts) == 1 and not source.header:
        parts = [believing(parts[0], file.with_name("config.json"))]
    tokenizer = tokenizer_folder(file.parent)
    return {part.name: replace(part, origin=file, tokenizer=tokenizer) for part in parts}


def part_of(header: Mapping[str, Any], state: State) -> Part:
    """A network as its header describes it; ValueError without a config, as in the header of a LoRA."""
    if not isinstance(header.get("config"), dict):
        raise ValueError(f"its header says {header['network']}, without the config of a network")
    facts = {key: value for key, value in header.items() if key not in ("network", "config", "layout")}
    return Part(header["network"], header["config"], dict(state), facts)


def identified(state: State, headers: Mapping[str, Any], header: Mapping[str, Any]) -> Part:
    """The network with these tensors in some other tool's layout; headers: of several, by name."""
    name, config, state = recognised(state)
    own = headers.get(name, header)
    return part_of(own, state) if "network" in own else Part(name, config, dict(state))


def recognised(state: State) -> tuple[str, dict[str, Any], State]:
    """Name, config and tensors, under our names, of a network; ValueError if it is none of ours."""
    encoder, ours = clip.to_ours(state), diffusers.to_ours(state)
    try:
        if found := clip.recognise(shapes_of(encoder)):
            return *found, encoder
        name, config = official.recognise(shapes_of(ours))
    except KeyError as error:
        raise ValueError(f"tensor {error} is missing") from None
    except IndexError:
        raise ValueError("a tensor has fewer dimensions than it has in any of our networks") from None
    return name, {**defaults(name), **config}, ours


def defaults(name: str) -> dict[str, Any]:
    """The constructor keywords of a network that need not be given, as plain data."""
    keywords = inspect.signature(NETWORKS[name].__init__).parameters.values()
    return {word.name: plain(word.default) for word in keywords if word.default is not word.empty}


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in state.items()}


def believing(part: Part, file: Path) -> Part:
    """The part with what the config.json of a diffusers or transformers folder says of it."""
    if not file.is_file():
        return part
    found = read_json(file)
    if part.name in ENCODERS:
        return Part(part.name, found, part.state)
    if found.get("_class_name", "").lower() != diffusers.CLASSES.get(part.name, "").lower():
        return part
    return Part(part.name, part.config | diffusers.config_to_ours(part.name, found), part.state)
