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
from modules.weights.headers import HEADER_KEY, parse_header
from modules.weights.lazy import lazy_state
from modules.weights.pickled import ENDINGS
from modules.weights.plain_data import head_of, parse_json, read_json
from modules.weights.writing import write_tensors

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


def read_index(path: Path) -> dict[str, str]:
    """The names of files by the tensors in them, of the index of weights in several files."""
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files or not all(map(_is_beside, files.values())):
        raise ValueError(f"{path}: not an index of weight files; expected their names under weight_map")
    return files


def _is_beside(file: Any) -> bool:
    """Whether this is the name of a weight file in the index's own folder."""
    return (
        isinstance(file, str) and Path(file).name == file and Path(file).suffix in (".safetensors", *ENDINGS)
    )


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
    head = head_of(Path(path))
    try:
        file = safe_open(path, "pt", device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
    parse_json(head, f"{path}: its header")  # which takes the last of two tensors of one name
    return file
