"""The facts of a picture, from which it can be made again to the last bit."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch

from inference.networks import Networks
from inference.settings import Request
from inference.sources import checksum
from inference.tasks import TASKS
from modules.schema import from_plain


@cache
def versions() -> dict[str, str]:
    """Of Kaskade and of torch."""
    with (Path(__file__).parent.parent / "pyproject.toml").open("rb") as file:
        return {"kaskade": tomllib.load(file)["project"]["version"], "torch": torch.__version__}


def facts_of(networks: Networks, batch: Sequence[Request], row: int) -> dict[str, Any]:
    """All that decides the pixels of one picture of a batch, as plain data.

    The batch and the number of threads count because kernels choose their order of summation by them: made
    alone, the same picture differs in the last bits.
    """
    request = batch[row]
    return {
        **asdict(request),
        "image_sha256": None if request.image is None else checksum(request.image),
        "batch": {"rows": len(batch), "row": row},
        "run": networks.run,
        "weights": asdict(networks.weights),
        "ema": networks.ema,
        "fingerprints": networks.fingerprints(TASKS[request.task].networks),
        "dtype": networks.dtype_name,
        "device": networks.device.type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def request_of(facts: Mapping[str, Any]) -> Request:
    """The request that a picture's facts describe; ValueError when they are not of that form."""
    return from_plain(Request, {f.name: facts[f.name] for f in fields(Request) if f.name in facts})


def same_batch(facts: Mapping[str, Any]) -> tuple[list[Request], int]:
    """A batch of the shape in which a picture was made, and the row that is the picture.

    The other rows are copies: what they hold does not matter, their number does.
    """
    place = facts.get("batch", {})
    return [request_of(facts)] * int(place.get("rows", 1)), int(place.get("row", 0))


def differences(facts: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of weights, image, versions, device or number format is no longer as when a picture was made."""
    keys = ("fingerprints", "image_sha256", "dtype", "device", "versions")
    return [key for key in keys if facts.get(key) != now[key]]
