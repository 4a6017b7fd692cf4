"""Making a picture again from its own metadata."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from inference.config import Config, changed_keys
from inference.facts import differences, facts_of, same_batch
from inference.pictures import Picture, open_picture
from inference.pipeline import Cascade
from inference.progress import OnStep, ignore

FREE_KEYS = {"recreate", "run", "weights", "ema", "device", "dtype", "offload", "output"}


def recreate(config: Config, on_step: OnStep = ignore) -> tuple[Picture, str]:
    """Make the picture config.recreate again; returns it and a line on whether its pixels are the same.

    Weights and device are those it was made with, unless the config names others. Raises ValueError when the
    config sets anything that the picture itself decides, or as read_facts and Cascade do.
    """
    decided = [key for key in changed_keys(config) if key not in FREE_KEYS]
    if decided:
        raise ValueError(f"{decided[0]}: recreate takes this from the picture; leave it out")
    original = open_picture(config.recreate or "")
    cascade = Cascade.load(**_where_from(config, original.facts), offload=config.offload)
    batch, row = same_batch(original.facts)
    [batch] = cascade.batches(batch, len(batch))
    with threads(original.facts.get("threads", torch.get_num_threads())):
        picture = Picture(cascade.run_batch(batch, on_step)[row], facts_of(cascade.networks, batch, row))
    if np.array_equal(np.asarray(picture.image), np.asarray(original.image)):
        return picture, "the same pixels"
    changed = differences(original.facts, picture.facts)
    return picture, f"the pixels differ; no longer the same: {', '.join(changed) or 'the machine'}"


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _where_from(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Keywords of Cascade.load: the picture's own, those that the config names in their place."""
    named = config.run is not None or bool(config.weights.given())
    source = {"run": config.run, "ema": config.ema, **asdict(config.weights)}
    if not named:
        source = {"run": facts["run"], "ema": facts["ema"], **facts["weights"]}
    device = facts["device"] if config.device == "auto" else config.device
    return {**source, "device": device, "dtype": config.dtype or facts["dtype"]}
