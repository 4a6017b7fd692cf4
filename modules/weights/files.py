"""Weight files: safetensors whose header says which network they hold, written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modules.network import Network

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
    path = Path(path)
    header = {"network": name, "config": network.config, **facts}
    state = network.state_dict() if tensors is None else tensors
    # Contiguous copies: safetensors refuses views of shared memory and channels-last strides.
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(whole, unfinished, metadata={HEADER_KEY: json.dumps(header)})
    unfinished.replace(path)


def read_header(path: str | Path) -> dict[str, Any]:
    """What the header of one of our files says; {} for a file of another origin.

    FileNotFoundError when there is no such file, ValueError when it is not a whole safetensors file.
    """
    with opened(path) as file:
        text = (file.metadata() or {}).get(HEADER_KEY, "{}")
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its header is not readable: {error}") from error
    return header


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors, without reading them."""
    with opened(path) as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def read_tensors(
    path: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A file's tensors on `device`; dtype converts the floating ones. Errors as in `read_header`."""
    with opened(path, device) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
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


@contextmanager
def opened(path: str | Path, device: str | torch.device = "cpu") -> Iterator[Any]:
    """Open a safetensors file; errors as in `read_header`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such weight file")
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
