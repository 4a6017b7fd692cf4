"""What run.json says of the data that was read: what was left out, and what each source gave."""

import itertools
from collections import Counter
from typing import Any

from dataset_tools.left_out import union
from dataset_tools.stream import Stream
from train.parallel.agreement import decide
from train.parallel.world import World

_asked = itertools.count()  # by runs of this process: the jobs of a --multirun share one group


def of_all_ranks(stream: Stream) -> dict[str, Any]:
    """The counts over all ranks since the run's first start; all must call."""
    return decide(f"tally/{next(_asked)}", _own(stream), _together)


def of_this_rank(stream: Stream, world: World) -> dict[str, Any]:
    """The same of this rank alone, for when others may not answer any more; says so where there are some."""
    alone = {} if world.size == 1 else {"counts_of": f"process {world.rank} of {world.size}"}
    return _together([_own(stream)]) | alone


def _own(stream: Stream) -> dict[str, Any]:
    of_sources = {source.name: stream.taken[source.name] for source in stream.config.named_sources()}
    return {"left_out": stream.left_out.marks, "sources": of_sources if stream.config.sources else {}}


def _together(of_ranks: list[dict[str, Any]]) -> dict[str, Any]:
    samples: Counter[str] = Counter()
    for own in of_ranks:
        samples.update(own["sources"])
    told = {"samples_of_sources": dict(samples)} if samples else {}
    return {"left_out": dict(union(own["left_out"] for own in of_ranks)), **told}
