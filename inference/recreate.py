"""Making a picture again from its own metadata."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.config import Config, changed_keys
from inference.facts import Origin, facts_of, origin_of, read_facts
from inference.pictures import Picture, open_picture
from inference.pipeline import Cascade
from inference.progress import OnStep, ignore
from inference.settings import Weights
from modules.encoders import cached_folder

FREE_KEYS = {
    "recreate",
    "run",
    "weights",
    "ema",
    "device",
    "dtype",
    "quantize",
    "compile",
    "offload",
    "output",
}
ENCODERS = ("text_encoder", "image_encoder")


def recreate(config: Config, on_step: OnStep = ignore) -> tuple[Picture, str]:
    """Make the picture config.recreate again; returns it and a line on whether its pixels are the same.

    Weights and device are those it was made with, unless the config names others; nothing is fetched because
    a picture says so. Raises ValueError when the config sets anything that the picture itself decides, and
    what read_facts and Cascade raise.
    """
    decided = [key for key in changed_keys(config) if key not in FREE_KEYS]
    if decided:
        raise ValueError(f"{decided[0]}: recreate takes this from the picture; leave it out")
    original = open_picture(config.recreate or "")
    request, origin = read_facts(original.facts)
    cascade = Cascade.load(**_where_from(config, origin), offload=config.offload)
    # The other rows of the batch are copies: what they hold does not matter, their number does.
    [batch] = cascade.batches([request] * origin.batch.rows, origin.batch.rows)
    with threads(origin.threads):
        image = cascade.run_batch(batch, on_step)[origin.batch.row]
        now = origin_of(cascade.stages, batch, origin.batch.row)
    picture = Picture(image, facts_of(batch[origin.batch.row], now))
    if np.array_equal(np.asarray(image), np.asarray(original.image)):
        return picture, "the same pixels"
    changed = ", ".join(origin.changed(now)) or "the machine"
    return picture, f"the pixels differ; no longer the same: {changed}"


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _where_from(config: Config, origin: Origin) -> dict[str, Any]:
    """Keywords of Cascade.load: the picture's own, those that the config names in their place."""
    named = config.run is not None or bool(config.weights.given())
    source = config if named else origin
    return {
        "run": source.run,
        "ema": source.ema,
        **(asdict(source.weights) if named else _here_already(source.weights)),
        "device": origin.device if config.device == "auto" else config.device,
        "dtype": config.dtype or origin.dtype,
        "quantize": config.quantize or origin.quantize,
        "compile": origin.compile if config.compile is None else config.compile,
        "tile_px": origin.tile_px,
    }


def _here_already(weights: Weights) -> dict[str, str | None]:
    """The same, with encoders that are named as at a hub replaced by their copies on this machine."""
    found: dict[str, str | None] = asdict(weights)
    for key in ENCODERS:
        name = found[key]
        if name is not None and not Path(name).is_dir():
            found[key] = str(cached_folder(name))
    return found
