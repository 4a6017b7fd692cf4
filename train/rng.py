"""All chance of a step, as a pure function of (seed, step, picture): no generator's state is ever saved."""

import hashlib
import struct
from dataclasses import dataclass

import torch

SHARED = -1  # in the place of a picture's index: the generator that all pictures of a step share
ROUNDING = -2  # in the place of a rank: all ranks round their copies of a weight alike


@dataclass(frozen=True)
class StepRng:
    """The generators of one micro-batch (on the CPU, so that a picture's noise is the same on every device).

    shared: the same on all ranks and in all micro-batches of a step; for choices that concern the whole
    batch. samples: one per picture, seeded by the picture's index in the step's global batch; so a loss does
    not depend on how the global batch is cut into ranks and micro-batches.
    """

    shared: torch.Generator
    samples: list[torch.Generator]


def mixed_seed(*parts: int) -> int:
    """A well mixed number in [0, 2^63) from several whole numbers; any change in one changes it all."""
    digest = hashlib.blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def step_rng(seed: int, step: int, first: int, count: int) -> StepRng:
    """The generators of the pictures first … first + count - 1 of a step's global batch."""
    return StepRng(_generator(seed, step, SHARED), [_generator(seed, step, first + i) for i in range(count)])


def seed_global(seed: int, step: int, rank: int, micro: int) -> None:
    """Seed torch's own generators, from which dropout draws."""
    torch.manual_seed(mixed_seed(seed, step, rank, micro))


def rounding_rng(seed: int, step: int, place: int, device: torch.device) -> torch.Generator:
    """By what the update of a parameter is rounded in a step; place: the parameter's among all that learn."""
    return torch.Generator(device).manual_seed(mixed_seed(seed, step, ROUNDING, place))


def _generator(*parts: int) -> torch.Generator:
    return torch.Generator().manual_seed(mixed_seed(*parts))
