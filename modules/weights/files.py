"""Weight files: safetensors whose header says which network they hold, written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modules.network import Network
from modules.weights.lazy import lazy_state
from modules.weights.pickled import ENDINGS
from modules.weights.writing import write_tensors

HEADER_KEY = "kaskade"
SAMPLED_BLOCKS, BLOCK_BYTES = 64, 65536


def save_network(
    path: str | Path,
    network: Network,
    name: str,
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a network's weights with its name, config and `facts` (plain data) in the header.

    tensors: what to write in the place of the network's own state, under the same names (averaged weights,
    or whole tensors of a sharded network).
    """
    header = {"network": name, "config": network.config, **facts}
    state = network.state_dict() if tensors is None else tensors
    write_tensors(path, lazy_state(state), {HEADER_KEY: json.dumps(header)})


def read_header(path: str | Path, name: str | None = None) -> dict[str, Any]:
    """What the header of one of our files says; {} for a file of another origin.

    name: the network to tell about, of a file that holds several. path: also the index of a file in several
    parts. FileNotFoundError when there is no such file, ValueError when it is not a whole safetensors file.
    """
    path = Path(path)
    if path.suffix == ".json":
        path = path.with_name(min(read_index(path).values()))
    elif path.suffix in ENDINGS and path.is_file():
        return {}
    header = parse_header(path, opened(path).metadata())
    return header.get("parts", {}).get(name, header)


def parse_header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Our header among a file's metadata; {} where there is none, ValueError where it is not readable."""
    return parse_json((metadata or {}).get(HEADER_KEY, "{}"), f"{path}: its header")


def parse_json(text: str, where: str) -> dict[str, Any]:
    """The mapping in a text; ValueError, beginning with `where`, when there is none."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not readable: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected a mapping, found {type(found).__name__}")
    return found


def read_index(path: Path) -> dict[str, str]:
    """The names of files by the tensors in them, of the index of weights in several files."""
    files = parse_json(path.read_text(encoding="utf-8"), str(path)).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{path}: not an index of weight files; expected their names under weight_map")
    return files


def read_tensors(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A file's tensors on `device`; dtype converts the floating ones. Errors as in `read_header`."""
    with opened(path, device) as file:
        try:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path}: holds tensors that cannot be read ({error})") from error
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()}


def fingerprint(path: Path) -> str:
    """A checksum of a file's length and of blocks spread evenly over it: quick for files of any size."""
    length = os.path.getsize(path)
    digest = hashlib.sha256(str(length).encode())
    with path.open("rb") as file:
        for i in range(SAMPLED_BLOCKS):
            file.seek(max(0, length - BLOCK_BYTES) * i // (SAMPLED_BLOCKS - 1))
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()[:16]


def opened(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """A safetensors file, open (also as a context) until nothing refers to it; errors as in `read_header`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such weight file")
    try:
        return safe_open(path, "pt", device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
