"""From a path to a network: which file, which network and size, and its weights, strictly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.network import Network
from modules.registry import build
from modules.weights import imagenet
from modules.weights.files import read_header, read_shapes, read_tensors
from modules.weights.official import recognise


def find_weights(path: str | Path, name: str, ema: bool = True) -> Path:
    """The weight file of network `name`.

    path: the file itself; or a run's folder, <path>/weights/<name>_ema.safetensors if there is one and `ema`,
    else <path>/weights/<name>.safetensors; or a folder of runs of which one holds it.
    FileNotFoundError if there is none, ValueError if several runs hold one.
    """
    path = Path(path)
    if path.is_file():
        return path
    endings = ("_ema", "") if ema else ("",)
    folders = [path, *sorted(child for child in path.glob("*/") if child.is_dir())]
    files = [[folder / "weights" / f"{name}{ending}.safetensors" for ending in endings] for folder in folders]
    found = [next((file for file in candidates if file.is_file()), None) for candidates in files]
    if found[0] is not None:
        return found[0]
    several = [file for file in found if file is not None]
    if len(several) > 1:
        runs = ", ".join(str(file.parent.parent) for file in several)
        raise ValueError(f"{path}: several runs hold {name} ({runs}); name one of them")
    if not several:
        raise FileNotFoundError(
            f"{path}: no weights of {name}; expected a file, a run's folder with weights/{name}.safetensors, "
            "or a folder of such runs"
        )
    return several[0]


def load_network(
    path: str | Path,
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    ema: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Network:
    """Build network `name` as its file says and fill it; `path` and `ema` as in `find_weights`.

    changes: constructor keywords in the place of the file's (dropout, say); the weights must still fit.
    The weights exist once: the network is built without storage and takes the tensors as they are read.
    dtype: number format of the floating weights (default: the file's). ValueError, one line, when the file
    holds another network, or lacks tensors, or has too many, or of wrong shapes.
    """
    file = find_weights(path, name, ema)
    found, config = describe(file)
    if found != name:
        raise ValueError(f"{file}: expected the network {name}, found {found}")
    if file.suffix == imagenet.ENDING:
        return imagenet.compressor_from_imagenet(file, changes or {}).to(device, dtype)
    with torch.device("meta"):
        network = build(name, {**config, **(changes or {})})
    tensors = read_tensors(file, device=device, dtype=dtype)
    check_tensors(file, network.state_dict(), tensors)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network


def describe(file: str | Path) -> tuple[str, dict[str, Any]]:
    """Name and config of the network in a file: from its header, or recognised in an official file."""
    if Path(file).suffix == imagenet.ENDING:
        return "semantic_compressor", {}
    header = read_header(file)
    if header:
        return header["network"], header["config"]
    try:
        return recognise(read_shapes(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def check_tensors(file: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming the first, unless both have the same names and shapes."""
    for what, names in (
        ("missing", expected.keys() - found.keys()),
        ("unexpected", found.keys() - expected.keys()),
    ):
        if names:
            raise ValueError(f"{file}: {len(names)} tensors {what}, such as {min(names)}")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"{file}: {name}: expected shape {list(tensor.shape)}, found {list(found[name].shape)}"
            )
