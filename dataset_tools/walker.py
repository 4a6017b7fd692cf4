"""The walk through a data set that forms batches: sources mixed by weight, buckets. It reads no pixels."""

from collections.abc import Iterator, Sequence
from typing import Any

from dataset_tools.buckets import Batcher
from dataset_tools.course import Course, Order, Share, Source
from dataset_tools.sample_refs import SampleRef, ShardIndexer


class Walker:
    """Goes through sources and forms batches of references of one bucket each.

    batch_size: references per batch. num_epochs: None: goes on for ever, and samples that do not fill a batch
    at the end of an epoch wait for those of the next, so none is lost and none is seen twice in an epoch.
    Else, with a single source, it ends after so many epochs, and each of them ends with short batches: an
    epoch's batches hold each sample once.

    Several sources take turns so that after any number of samples each has had its weight's share of them,
    give or take a sample; each goes through its own epochs. The walk is a function of its arguments: the same
    in every process.
    """

    def __init__(
        self,
        indexer: ShardIndexer,
        sources: Sequence[Source],
        batch_size: int,
        *,
        share: Share = Share(),  # noqa: B008 (immutable)
        order: Order = Order(),  # noqa: B008 (immutable)
        num_epochs: int | None = None,
    ):
        self.courses = [Course(indexer, source, share, order) for source in sources]
        total = sum(source.weight for source in sources)
        self.shares = [source.weight / total for source in sources]
        self.taken = [0] * len(sources)  # samples
        self.num_epochs = num_epochs
        self.batcher: Batcher[SampleRef] = Batcher(indexer.buckets.sizes, batch_size)
        self.num_batches = 0

    @property
    def epoch(self) -> int:
        """The earliest that a source is in."""
        return min(course.epoch for course in self.courses)

    def batches(self) -> Iterator[list[SampleRef]]:
        """Yield batches, to the end if there is one. Raises ValueError when no sample is usable."""
        refs = [course.refs() for course in self.courses]
        while self.num_epochs is None or self.epoch < self.num_epochs:
            turn = self._turn()
            ref = next(refs[turn])
            if ref is not None:
                self.taken[turn] += 1
                self.batcher.add(ref.bucket, ref)
                if full := self.batcher.pop():
                    self.num_batches += 1
                    yield full[1]
            elif self.num_epochs is not None:
                yield from self._rest()
                if self.epoch + 1 == self.num_epochs:
                    return

    def state(self) -> dict[str, Any]:
        """Where the walk is, as plain data; the references that wait for a full batch are part of it."""
        waiting = [tuple(ref) for refs in self.batcher.waiting.values() for ref in refs]
        return {
            "courses": [course.position for course in self.courses],
            "taken": list(self.taken),
            "num_batches": self.num_batches,
            "waiting": waiting,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, in a walk with the same arguments."""
        for course, position in zip(self.courses, state["courses"], strict=True):
            course.restore(position)
        self.taken, self.num_batches = list(state["taken"]), state["num_batches"]
        for fields in state["waiting"]:
            ref = SampleRef(*fields)
            (height, width), picture = ref.bucket, ref.picture  # lists, if the state was kept as json
            ref = ref._replace(picture=(picture[0], picture[1]), bucket=(height, width))
            self.batcher.add(ref.bucket, ref)

    def place(self) -> list[list[int]]:
        """The blocks of shards that the walk is in; what a walk restored here reads first."""
        return [course.position[:2] for course in self.courses]

    def _turn(self) -> int:
        """The source that lacks most of its share; the first of equals."""
        if len(self.courses) == 1:
            return 0
        count = sum(self.taken) + 1
        lacks = [share * count - taken for share, taken in zip(self.shares, self.taken, strict=True)]
        return lacks.index(max(lacks))

    def _rest(self) -> Iterator[list[SampleRef]]:
        while rest := self.batcher.pop_rest():
            self.num_batches += 1
            yield rest


def state_at(epoch: int, num_sources: int) -> dict[str, Any]:
    """The state of a walk that begins with an epoch."""
    courses = [[epoch, 0, 0] for _ in range(num_sources)]
    return {"courses": courses, "taken": [0] * num_sources, "num_batches": 0, "waiting": []}
