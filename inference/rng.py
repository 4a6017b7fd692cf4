"""The streams of random numbers of a picture, one for everything that draws from chance."""

import hashlib

import torch


def stage_generator(seed: int, stage: str) -> torch.Generator:
    """The random numbers of one stage of one picture; drawn on the CPU, so the same for every device."""
    digest = hashlib.sha256(f"{seed} {stage}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
