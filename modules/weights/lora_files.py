"""LoRA files of every layout: read by their keys, written for the tool that is to load them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from modules.adapters.lora_state import LoRAState
from modules.schema import nearest
from modules.weights.files import opened, read_tensors
from modules.weights.headers import HEADER_KEY, parse_header
from modules.weights.lazy import lazy_state
from modules.weights.loading import find_weights
from modules.weights.lora_checks import check_numbers, check_state
from modules.weights.lora_layouts import LAYOUTS, read_named, unfolded, write_named
from modules.weights.lora_metadata import PEFT_FILE, PEFT_KEY, alpha_of, make_metadata, take_peft_alphas
from modules.weights.lora_names import network_of
from modules.weights.lora_official import is_official, read_official, take_rows, write_official, write_rows
from modules.weights.pickled import ENDINGS, read_pickled
from modules.weights.plain_data import parse_json, read_json
from modules.weights.writing import write_tensors

OFFICIAL = "official"
FOLDER_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")  # of peft and of diffusers
STAGES = ("stage_b", "stage_c")
EMBEDDING = {"clip_g", "clip_g_out"}
OURS_ALONE = ("network", "config", "layout", "numbering", "alphas")  # of a header: not facts about the LoRA


def read_lora(path: str | Path, ema: bool = True) -> LoRAState:
    """The LoRA in a file of any layout, of a run, or of peft's or diffusers' folder.

    facts: what our header says; "layout": which layout it is; "for": stage_c or stage_b; "other_tools": the
    other metadata. Where nothing says alpha, it is the rank.
    FileNotFoundError when there is none, ValueError naming the keys that are not understood.
    """
    file = find_lora(path, ema)
    tensors, metadata = read_all(file)
    header = parse_header(file, metadata)
    check_numbers(str(file), tensors)
    try:
        state = understood(file, tensors, header)
        state.facts.update({key: value for key, value in header.items() if key not in OURS_ALONE})
        state.facts["other_tools"] = {key: value for key, value in metadata.items() if key != HEADER_KEY}
        _take_peft_alphas(state, file, metadata)
        _finish(file, state, header, list(tensors))
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from error
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file}: what it says of its layers is not what it holds ({reason})") from error
    return state


def understood(file: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> LoRAState:
    """The layers and tokens in a file's tensors. ValueError naming the keys that are not understood."""
    if tensors.keys() <= EMBEDDING:  # OneTrainer's file of one embedding, whose text is the file's name
        tensors = {f"bundle_emb.{file.stem}.{key}": tensor for key, tensor in tensors.items()}
    keys = list(tensors)
    tensors, rows = take_rows(tensors)
    if is_official(tensors):
        state, unknown = read_official(tensors, header.get("numbering", []))
    else:
        state, unknown = read_named(tensors)
    state.rows.update(rows)
    if unknown or not keys:
        few = ", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else "")
        raise ValueError(f"{file}: not a LoRA of this family: {len(unknown)} keys not understood ({few})")
    check_state(str(file), state)
    return state


def write_lora(path: str | Path, state: LoRAState, layout: str = "comfyui") -> None:
    """Write a safetensors file in a layout: "official" or one of LAYOUTS.

    Metadata: what wrote it, for and from which base, with which settings. ValueError for an unknown layout or
    for what the layout has no place for.
    """
    if state.facts.get("norms_of") == "original" and layout != "comfyui":
        raise ValueError(f"LoRA: its magnitudes were rescaled for ComfyUI; {layout} wants the others")
    network = state.facts.get("for") or network_of(list(state.parts["unet"]))
    ours: dict[str, Any] = {}
    if layout == OFFICIAL:
        tensors, ours["numbering"] = write_official(state)
    elif layout in LAYOUTS:
        if state.numbered:
            raise ValueError(
                f"LoRA: its layers have numbers, no names; the layout {layout} needs a network to name them"
            )
        tensors = write_named(state, layout, network)
        if LAYOUTS[layout].alpha == "folded":
            ours["alphas"] = _alphas(state)
    else:
        raise ValueError(f"LoRA layout {layout!r} is not known; {nearest(layout, [*LAYOUTS, OFFICIAL])}")
    tensors |= write_rows(state.rows)
    write_tensors(path, lazy_state(tensors), make_metadata(state, layout, network, ours))


def find_lora(path: str | Path, ema: bool = True) -> Path:
    """The file: the path itself, the one in peft's or diffusers' folder, or that of a run."""
    path = Path(path)
    inside = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
    return inside or find_weights(path, "lora", ema)


def read_all(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, and its metadata.

    Floating numbers of 8 bits, with which nothing can be computed, as bf16, which holds each of them exactly.
    """
    is_pickled = file.suffix in ENDINGS
    tensors = read_pickled(file) if is_pickled else read_tensors(file)
    metadata = {} if is_pickled else opened(file).metadata() or {}
    short = [key for key, tensor in tensors.items() if tensor.is_floating_point() and tensor.itemsize == 1]
    return tensors | {key: tensors[key].bfloat16() for key in short}, metadata


def _take_peft_alphas(state: LoRAState, file: Path, metadata: Mapping[str, str]) -> None:
    beside = file.with_name(PEFT_FILE)
    if PEFT_KEY in metadata:
        take_peft_alphas(state, parse_json(metadata[PEFT_KEY], f"{file}: {PEFT_KEY}"))
    elif beside.is_file() and file.name in FOLDER_FILES:
        take_peft_alphas(state, read_json(beside))


def _finish(file: Path, state: LoRAState, header: Mapping[str, Any], keys: list[str]) -> None:
    """Say which network and layout it is, and undo what our writer did that the layout cannot say."""
    base = (header.get("base") or {}).get("network")
    layers = state.parts["unet"]
    network = header.get("for") or base or network_of([*layers, *keys])
    if network not in STAGES:
        raise ValueError(f"{file}: its header: for: expected {' or '.join(STAGES)}, found {network!r}")
    state.facts["for"] = network
    if network == "stage_b" and "clip_txt_pooled_mapper" in layers:  # what diffusers calls it
        layers["clip_mapper"] = layers.pop("clip_txt_pooled_mapper")
    for place, alpha in header.get("alphas", {}).items():
        part, name = place.split("/")
        if name in state.parts[part]:
            state.parts[part][name] = unfolded(state.parts[part][name], alpha)
    state.facts["layout"] = header.get("layout") or recognise(state, keys, network)


def recognise(state: LoRAState, keys: list[str], network: str) -> str:
    """The layout in which exactly these keys would be written; "mixed" when there is none."""
    if is_official(keys):
        return OFFICIAL
    for layout in LAYOUTS:
        try:
            written = write_named(state, layout, network)
        except ValueError:
            continue
        if written.keys() | write_rows(state.rows).keys() == set(keys):
            return layout
    return "mixed"


def _alphas(state: LoRAState) -> dict[str, float]:
    return {
        f"{part}/{name}": alpha_of(factors)
        for part, layers in state.parts.items()
        for name, factors in layers.items()
        if factors.alpha is not None
    }
