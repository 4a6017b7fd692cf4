"""Plain weight files from a checkpoint, tensor by tensor: no GPU, no more memory than the largest tensor."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modules.weights import read_header
from modules.weights.files import HEADER_KEY
from modules.weights.lazy import LazyTensor
from modules.weights.writing import write_tensors
from train.checkpoints.shards import Shards


def export(checkpoint: Path, networks: Mapping[str, Mapping[str, Any]], step: int, out: Path) -> list[Path]:
    """Write <out>/<network>.safetensors and, where averages are kept, …_ema; returns their paths.

    networks: name -> what the header says of it; "step" is added.
    """
    written = []
    shards = Shards(checkpoint)
    for name, header in networks.items():
        for stem, tensors in network_files(shards, name):
            path = out / f"{stem}.safetensors"
            write_tensors(path, tensors, {HEADER_KEY: json.dumps({**header, "step": step})})
            written.append(path)
    return written


def network_files(shards: Shards, name: str) -> Iterator[tuple[str, dict[str, LazyTensor]]]:
    """The files of one network: stem -> its tensors; in the second what learns is replaced by its average."""
    weights, averages = shards.below(f"weights/{name}/"), shards.below(f"ema/{name}/")
    yield name, weights
    if averages:
        yield f"{name}_ema", {**weights, **averages}


def is_exported(checkpoint: Path, networks: Mapping[str, Any], step: int, out: Path) -> bool:
    """Whether all files that `export` writes are in `out`, and of a checkpoint after `step` steps."""
    shards = Shards(checkpoint)
    paths = [out / f"{stem}.safetensors" for name in networks for stem, _ in network_files(shards, name)]
    try:
        return all(path.is_file() and read_header(path).get("step") == step for path in paths)
    except ValueError:  # the machine lost its power before the file was on its disk
        return False


def remove_unfinished(out: Path) -> None:
    """Remove what an export that was killed has left half-written."""
    for path in out.glob("*.safetensors.*.tmp"):
        path.unlink()
