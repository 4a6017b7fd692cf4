"""The facts of a picture, from which it can be made again to the last bit."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch

from inference.reading import Compile
from inference.settings import Request, Weights
from inference.sources import checksum
from inference.stages import Stages
from inference.tasks import task_of
from modules.schema import bounded, from_plain

MOST_ROWS, MOST_THREADS = 4096, 1024  # more than any machine has; pictures of strangers say them


@dataclass(frozen=True)
class Place:
    """The batch that a picture was made in, and its row there."""

    rows: int = bounded(1, least=1, most=MOST_ROWS)
    row: int = bounded(0, least=0)

    def __post_init__(self) -> None:
        if self.row >= self.rows:
            raise ValueError(f"row: expected less than rows ({self.rows}), found {self.row}")


@dataclass(frozen=True)
class Origin:
    """What decides a picture's pixels besides its request.

    The batch and the number of threads count because kernels choose their order of summation by them: made
    alone, the same picture differs in the last bits.
    """

    run: str | None
    weights: Weights
    ema: bool
    dtype: str
    device: str
    versions: dict[str, str]
    fingerprints: dict[str, str]  # of the networks' files
    pictures_sha256: dict[str, str] = field(default_factory=dict)  # by setting: image, mask, …
    threads: int = bounded(1, least=1, most=MOST_THREADS)
    batch: Place = field(default_factory=Place)
    quantize: dict[str, str] = field(default_factory=dict)
    tile_px: int | None = None
    compile: Compile = False

    def changed(self, now: "Origin") -> list[str]:
        """What of weights, pictures, versions, device or number format is no longer as it was here."""
        keys = ("fingerprints", "pictures_sha256", "dtype", "quantize", "compile", "device", "versions")
        return [key for key in keys if getattr(self, key) != getattr(now, key)]


@cache
def versions() -> dict[str, str]:
    """Of Kaskade and of torch."""
    with (Path(__file__).parent.parent / "pyproject.toml").open("rb") as file:
        return {"kaskade": tomllib.load(file)["project"]["version"], "torch": torch.__version__}


def origin_of(stages: Stages, batch: Sequence[Request], row: int) -> Origin:
    """What one picture of a batch comes from."""
    request, networks = batch[row], stages.networks
    fingerprints = networks.fingerprints(task_of(request).networks)
    return Origin(
        run=networks.run,
        weights=networks.weights,
        ema=networks.ema,
        dtype=networks.dtype_name,
        device=networks.device.type,
        versions=versions(),
        fingerprints=fingerprints | stages.adapters.fingerprints(request),
        pictures_sha256={name: checksum(path) for name, path in request.pictures.items()},
        threads=torch.get_num_threads(),
        batch=Place(len(batch), row),
        quantize=dict(networks.keeping.quantize),
        tile_px=stages.tile_px,
        compile=networks.keeping.compile,
    )


def facts_of(request: Request, origin: Origin) -> dict[str, Any]:
    """Both as one mapping of plain data, for the picture's metadata."""
    return {**asdict(request), **asdict(origin)}


def read_facts(facts: Mapping[str, Any]) -> tuple[Request, Origin]:
    """The request and the origin again. ValueError names the entry that is missing or not of that form."""

    def part(kind: type) -> Any:
        names = [entry.name for entry in fields(kind)]
        return from_plain(kind, {name: facts[name] for name in names if name in facts})

    return part(Request), part(Origin)
