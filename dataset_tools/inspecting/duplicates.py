"""Pictures that are there more than once: the same file, or the same picture in another file."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from PIL import Image

SIDE = 8
SIGNATURE_BYTES = 2 * 3 * SIDE * SIDE // 8 + 3
STEP_LEVELS = 4
"""Neighbours that differ by less count as equal, so that noise in an even area decides nothing."""
MAX_APART = 0.2
"""Two signatures of one picture differ in at most this share of the bits that either has set."""
MAX_COLOUR_LEVELS = 10
MAX_COMPARED = 50_000
"""Beyond so many pictures only equal signatures are found: comparing all pairs would take too long."""


def signature(image: Image.Image) -> bytes:
    """Describe an RGB picture in 51 bytes that scaling and compression hardly change.

    A difference hash: the picture shrunk to 9 x 9 px; for each of 8 x 8 px and 3 colours, is the neighbour
    to the right, and the one below, brighter. Then the mean colour, which tells even pictures apart.
    """
    small = np.asarray(image.resize((SIDE + 1, SIDE + 1), Image.Resampling.BOX), dtype=np.int16)
    right = small[:-1, 1:] - small[:-1, :-1] > STEP_LEVELS
    below = small[1:, :-1] - small[:-1, :-1] > STEP_LEVELS
    mean = small.mean((0, 1)).round().astype(np.uint8)
    return np.packbits(np.stack([right, below])).tobytes() + mean.tobytes()


def groups_of_equals(values: Iterable[Hashable]) -> list[list[int]]:
    """Return the positions of values that occur more than once, a list for each, in order."""
    positions = defaultdict(list)
    for position, value in enumerate(values):
        positions[value].append(position)
    return [group for group in positions.values() if len(group) > 1]


def groups_of_similar(signatures: Sequence[bytes]) -> list[list[int]]:
    """Return the positions of pictures that look alike, a list for each set that hangs together, in order."""
    if len(signatures) < 2:
        return []
    if len(signatures) > MAX_COMPARED:
        return groups_of_equals(signatures)
    table = np.frombuffer(b"".join(signatures), dtype=np.uint8).reshape(len(signatures), -1)
    bits = np.ascontiguousarray(table[:, :-3]).view(np.uint64)  # [N, 6]
    colours = table[:, -3:].astype(np.int16)
    parents = list(range(len(signatures)))
    for i in range(len(signatures) - 1):
        others = bits[i + 1 :]
        apart = np.bitwise_count(others ^ bits[i]).sum(1)
        limit = MAX_APART * np.bitwise_count(others | bits[i]).sum(1)
        near = np.flatnonzero(apart <= limit) + i + 1
        near = near[(abs(colours[near] - colours[i]) <= MAX_COLOUR_LEVELS).all(1)]
        for j in near:
            parents[_root(parents, int(j))] = _root(parents, i)
    return groups_of_equals(_root(parents, i) for i in range(len(signatures)))


def _root(parents: list[int], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i
