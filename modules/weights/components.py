"""Writes single networks: one file with our header, or a folder as diffusers and transformers save it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modules.weights.folders import TOKENIZER_FILES
from modules.weights.headers import HEADER_KEY
from modules.weights.layouts import diffusers
from modules.weights.lazy import LazyTensor, State
from modules.weights.parts import ENCODERS, NATIVE, Part
from modules.weights.writing import write_tensors

SHARD_BYTES = 10_000_000_000
TOKENIZER_COMPANIONS = ("tokenizer_config.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
OnBytes = Callable[[int], None]


def ignore(num_bytes: int) -> None:
    """Watch nothing."""


def header_of(part: Part, layout: str) -> dict[str, Any]:
    """What a file says of a network; `layout` only where its tensors have other names than ours."""
    named = {} if layout == NATIVE else {"layout": layout}
    return {"network": part.name, "config": part.config, **named, **part.facts}


def write_file(path: Path, state: State, header: Mapping[str, Any], on_bytes: OnBytes = ignore) -> None:
    """A safetensors file with our header; "format" is what transformers looks for."""
    write_tensors(path, state, {"format": "pt", HEADER_KEY: json.dumps(header)}, on_bytes)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_component(
    folder: Path,
    part: Part,
    *,
    variant: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    on_bytes: OnBytes = ignore,
) -> None:
    """A network's folder: config.json and weights, in several files with an index where they are large.

    variant: a word in the files' names, such as bf16. ValueError when diffusers has no such network.
    """
    if part.name in ENCODERS:
        stem, state = "model", dict(part.state)
        config = {**part.config, "dtype": number_format(part.state)}
    else:
        stem, state = "diffusion_pytorch_model", diffusers.to_theirs(part.name, part.state)
        config = diffusers.config_to_theirs(part.name, part.config)
    write_json(folder / "config.json", config)
    stem, header = f"{stem}.{variant}" if variant else stem, header_of(part, "diffusers")
    shards = split_state(state, shard_bytes)
    if len(shards) == 1:
        write_file(folder / f"{stem}.safetensors", state, header, on_bytes)
        return
    names = [f"{stem}-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_file(folder / name, shard, header, on_bytes)
    index = {
        "metadata": {"total_size": sum(tensor.num_bytes for tensor in state.values())},
        "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
    }
    base, _, word = stem.partition(".")
    write_json(folder / f"{base}.safetensors.index.{word + '.' if word else ''}json", index)


def split_state(state: State, most_bytes: int) -> list[dict[str, LazyTensor]]:
    """The tensors in groups of at most so many bytes, each at least one tensor."""
    shards: list[dict[str, LazyTensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        if shards[-1] and size + tensor.num_bytes > most_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.num_bytes
    return shards


def number_format(state: State) -> str:
    """The name of the first floating number format among the tensors, as transformers writes it."""
    formats = (tensor.dtype for tensor in state.values() if tensor.dtype.is_floating_point)
    return str(next(formats)).removeprefix("torch.")


def write_tokenizer(folder: Path, part: Part) -> None:
    """Copy a text encoder's tokenizer. ValueError when it is not known where that is."""
    if part.tokenizer is None:
        raise ValueError(
            "text_encoder: there is no tokenizer with it; name the folder of the one it was trained with "
            "(the released models' is in the pipelines' folder tokenizer)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*TOKENIZER_FILES, *TOKENIZER_COMPANIONS):
        if (part.tokenizer / name).is_file():
            shutil.copyfile(part.tokenizer / name, folder / name)
