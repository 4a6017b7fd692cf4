"""What a run leaves out: counted once each, however many epochs, workers and ranks come across it."""

import logging
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

from dataset_tools.kinds import Kind
from dataset_tools.sample_refs import Skipped

log = logging.getLogger(__name__)

MAX_NAMED = 100
"""Of each kind that the log names; a data set can hold millions."""
MAX_COUNTED = 50_000
"""Of each kind by each rank: all are kept in memory and in every checkpoint, to be counted once."""

Marks = dict[str, dict[str, int]]
"""By kind: checksum of the name of what was left out, number of samples. Plain data."""


class LeftOut:
    """Counts by kind, up to MAX_COUNTED of each, and names the first of each kind in the log."""

    def __init__(self) -> None:
        self.marks: Marks = {}
        self._first = ""

    def note(self, skipped: Skipped) -> None:
        """Count and name something left out, unless it was before."""
        seen = self.marks.setdefault(skipped.kind.value, {})
        mark = blake2b(skipped.name.encode(errors="backslashreplace"), digest_size=8).hexdigest()
        if mark in seen or len(seen) >= MAX_COUNTED:
            return
        seen[mark] = skipped.num_samples
        if len(seen) == MAX_COUNTED:
            log.warning("data: further %s are not counted, there are too many of them", skipped.kind)
        self._first = self._first or f"{skipped.name}: {skipped.reason}"
        if len(seen) > MAX_NAMED:
            return
        level = logging.INFO if skipped.kind is Kind.FILTERED else logging.WARNING
        log.log(level, "data: skipped %s %s: %s", skipped.kind, skipped.name, skipped.reason)
        if len(seen) == MAX_NAMED:
            log.log(level, "data: further %s are counted, but not named", skipped.kind)

    def add(self, marks: Marks) -> None:
        """Count what another has left out, too."""
        for kind, found in marks.items():
            seen = self.marks.setdefault(kind, {})
            for mark, number in found.items():
                if len(seen) < MAX_COUNTED:
                    seen[mark] = number

    def counts(self) -> Counter[str]:
        """How many were left out of each kind."""
        return union([self.marks])

    def __str__(self) -> str:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(self.counts().items()))
        first = f"; the first: {self._first}" if self._first else ""  # none if all were before this start
        return f"left out: {counts}{first}" if counts else "the shards hold no samples"


def union(of_ranks: Iterable[Marks]) -> Counter[str]:
    """How many were left out by all ranks together; what several came across counts once."""
    together: Marks = {}
    for marks in of_ranks:
        for kind, found in marks.items():
            together.setdefault(kind, {}).update(found)
    return Counter({kind: sum(found.values()) for kind, found in together.items()})
