"""From a path to a network: which file, which network and size, and its weights, strictly."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from modules.limits import at_most
from modules.network import Network
from modules.registry import NETWORKS, build
from modules.weights import imagenet
from modules.weights.folders import encoder_folder, folder_around, is_component, weights_in_folder
from modules.weights.parts import ENCODERS, Part, read_parts

MORE, SOME = 4, 1000  # more tensors than a file has: the difference can still be named one by one


def find_weights(path: str | Path, name: str, ema: bool = True) -> Path:
    """The weight file of network `name`, or of the encoder text_encoder or image_encoder.

    path: the file itself; or a folder that holds one in any way that `weights_in_folder` knows (a run's
    averaged weights rather than the plain ones if `ema`); or a folder of such folders, of which the one with
    the network's name counts first (others may hold what was made of it, a distilled student, say).
    FileNotFoundError if there is none, ValueError if several others hold one.
    """
    path = Path(path)
    if path.is_file():
        return path
    if found := weights_in_folder(path, name, ema):
        return found
    folders = sorted(child for child in path.glob("*/") if child.is_dir() and not is_component(child))
    several = {folder: file for folder in folders if (file := weights_in_folder(folder, name, ema))}
    if path / name in several:
        return several[path / name]
    if len(several) > 1:
        places = ", ".join(map(str, several))
        raise ValueError(f"{path}: several runs hold {name} ({places}); name one of them")
    if not several:
        raise FileNotFoundError(
            f"{path}: no weights of {name}; expected a file, a run's folder with weights/{name}.safetensors, "
            "a diffusers folder, or a folder of such folders"
        )
    return several.popitem()[1]


def contents(path: str | Path, ema: bool = True) -> dict[str, Path]:
    """What a file or folder holds: the weight file of every network, the folder of every encoder, by name.

    ema: as in `find_weights`. Encoders inside a checkpoint are left out: there is no tokenizer with them.
    {} if it holds nothing.
    """
    path = Path(path)
    if path.is_file():
        return {name: path for name in read_parts(path) if name in NETWORKS}
    if is_component(path):
        file = find_weights(path, "")
        return {name: path if name in ENCODERS else file for name in read_parts(file)}
    found: dict[str, Path] = {}
    for name in NETWORKS:
        with suppress(FileNotFoundError):
            found[name] = find_weights(path, name, ema)
    # Of several runs' encoders, Stage C's.
    around = [folder_around(found[stage]) for stage in ("stage_c", "stage_b") if stage in found]
    for name in ENCODERS:
        folders = (encoder_folder(folder, name) for folder in (*around, path))
        if folder := next(filter(None, folders), None):
            found[name] = folder
    return found


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
    if file.suffix == imagenet.ENDING:
        return imagenet.compressor_from_imagenet(file, changes or {}).to(device, dtype)
    return filled(pick_part(file, name, ema), device=device, dtype=dtype, changes=changes)


def filled(
    part: Part,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Network:
    """The network of a part, with its weights; keywords and errors as in `load_network`."""
    network = skeleton(part, changes)
    check_tensors(part.origin or part.name, network.state_dict(), part.state)
    tensors = {key: tensor.to(dtype).read().to(device) for key, tensor in part.state.items()}
    network.load_state_dict(tensors, strict=True, assign=True)
    return network


def skeleton(part: Part, changes: Mapping[str, Any] | None = None) -> Network:
    """The network of a part without its weights. ValueError when its config makes none of about its size.

    The config may be a stranger's: one that asks for far more tensors than there are is stopped on the way.
    """
    where = part.origin or part.name
    try:
        with torch.device("meta"), at_most(MORE * len(part.state) + SOME, f"config of {part.name}"):
            return build(part.name, {**part.config, **(changes or {})})
    except ValueError as error:
        raise ValueError(f"{where}: {error}; the file has {len(part.state)} tensors") from error


def describe(file: str | Path, name: str | None = None) -> tuple[str, dict[str, Any]]:
    """Name and config of the network in a file: from its header, or recognised by its tensors.

    name: the one that is wanted, of a file that holds several; the first if it is not in it.
    """
    if Path(file).suffix == imagenet.ENDING:
        return "semantic_compressor", {}
    parts = read_parts(file)
    part = parts.get(name or "") or next(iter(parts.values()))
    return part.name, part.config


def pick_part(file: Path, name: str, ema: bool = True) -> Part:
    """Network `name` of a file; ValueError when it holds only others."""
    parts = read_parts(file, ema)
    if name not in parts:
        raise ValueError(f"{file}: expected the network {name}, found {', '.join(parts)}")
    return parts[name]


def check_tensors(file: Path | str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise ValueError, naming some, unless both have the same names and shapes."""
    for what, names in (
        ("missing", expected.keys() - found.keys()),
        ("unexpected", found.keys() - expected.keys()),
    ):
        if names:
            few = ", ".join(sorted(names)[:5])
            raise ValueError(f"{file}: {len(names)} tensors {what}, such as {few}")
    for name, tensor in expected.items():
        if tuple(tensor.shape) != tuple(found[name].shape):
            raise ValueError(
                f"{file}: {name}: expected shape {list(tensor.shape)}, found {list(found[name].shape)}"
            )
