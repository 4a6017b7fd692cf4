"""What the commands that read and write weight files share."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from modules.adapters.lora_state import LoRAState
from modules.network import Network
from modules.schema import one_line
from modules.weights import contents, find_weights, folder_around
from modules.weights.loading import pick_part, skeleton
from modules.weights.lora_files import find_lora
from modules.weights.parts import Part
from modules.weights.sources import open_source

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LORA_NAMES = re.compile(
    r".*lora([._]|_[AB]\.)?(up|down|weight|magnitude).*|weights\.\d+\.lora_.*|bundle_emb\..*"
)


def run_command(command: Callable[[], None]) -> int:
    """Run it; a mistake of the user's is one line and status 2."""
    try:
        command()
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    return 0


def holds_lora(path: Path) -> bool:
    """Whether a file, or what a folder holds, is a LoRA; False when there is no such file.

    A folder of runs is one of networks, if it holds any, though there be a LoRA among them.
    """
    try:
        file = find_lora(path)
        names = open_source(file).state
    except (ValueError, FileNotFoundError):
        return False
    among_runs = path.is_dir() and folder_around(file) != path
    if among_runs and contents(path):
        return False
    return any(LORA_NAMES.fullmatch(name) for name in names)


def meta_network(path: Path, name: str) -> Network:
    """The structure of network `name` in a file, without its weights."""
    return skeleton(pick_part(find_weights(path, name), name))


def in_format(state: LoRAState, dtype: torch.dtype) -> LoRAState:
    """The LoRA with its factors in another number format."""
    parts = {
        part: {
            name: each._replace(down=each.down.to(dtype), up=each.up.to(dtype))
            for name, each in layers.items()
        }
        for part, layers in state.parts.items()
    }
    return replace(state, parts=parts)


def described(part: Part) -> str:
    """A part in a few words."""
    elements = sum(torch.Size(tensor.shape).numel() for tensor in part.state.values())
    formats = {str(t.dtype).removeprefix("torch.") for t in part.state.values() if t.dtype.is_floating_point}
    return f"{part.name} ({elements:,} numbers in {len(part.state)} tensors, {', '.join(sorted(formats))})"


def size_of(path: Path) -> str:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"
