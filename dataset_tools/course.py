"""The course of a walk through one source: epochs, shuffling, the shards of a share. It reads no pixels."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from dataset_tools.sample_refs import SampleRef, ShardIndexer


class Source(NamedTuple):
    """Shards that are read as one data set, and how often compared to the others."""

    shards: Sequence[str]
    name: str = ""
    weight: float = 1.0
    where: str = ""  # what the config calls it, for messages


class Share(NamedTuple):
    """Who else goes through the same source: this is the number-th of num_shares, from 0."""

    number: int = 0
    num_shares: int = 1


class Order(NamedTuple):
    """What decides the order of samples.

    shuffle: how many samples at least are mixed with each other (whole shards); 0 keeps the order of shards
    and samples. resample: draw shards and samples with replacement in place of epochs.
    """

    seed: int = 0
    shuffle: int = 0
    resample: bool = False


class Course:
    """Goes through a source for ever, the same way in every process.

    A share takes every num_shares-th shard of each epoch's order, in the first beginning with the number-th.
    """

    def __init__(self, indexer: ShardIndexer, source: Source, share: Share, order: Order):
        self.indexer, self.source, self.share, self.order = indexer, source, share, order
        self.epoch = 0
        self.block = 0  # first of the shards, in this epoch's order, that are mixed now
        self.offset = 0  # next sample of the block

    @property
    def position(self) -> list[int]:
        """Where it is, as plain data; `restore` goes on there."""
        return [self.epoch, self.block, self.offset]

    def restore(self, position: Sequence[int]) -> None:
        """Go on at a position, reading nothing before its block."""
        self.epoch, self.block, self.offset = position

    def refs(self) -> Iterator[SampleRef | None]:
        """Yield samples, and None at the end of each epoch. Raises ValueError when none is usable."""
        while True:
            shards = self._shards_of_epoch()
            is_usable = self.block + self.offset > 0  # else there would be no position in the epoch
            while self.block < len(shards):
                refs, next_block = self._read_block(shards)
                is_usable |= bool(refs)
                while self.offset < len(refs):
                    self.offset += 1
                    yield refs[self.offset - 1]
                self.block, self.offset = next_block, 0
            if not is_usable:
                self._check_others(shards)
            yield None
            self.epoch, self.block = self.epoch + 1, 0

    def _rng(self, *what: object) -> Random:
        whose = [self.source.name] if self.source.name else []
        return Random("/".join(map(str, (self.order.seed, *whose, self.epoch, *what))))

    def _shards_of_epoch(self) -> list[str]:
        """Those of this share; drawn with replacement, as many as it would have without."""
        order = list(self.source.shards)
        if self.order.resample:
            return self._rng("shards", self.share.number).choices(
                order, k=-(-len(order) // self.share.num_shares)
            )
        if self.order.shuffle:
            self._rng("shards").shuffle(order)
        first = (
            self.share.number + self.epoch
        ) % self.share.num_shares  # no share has broken shards for ever
        return order[first :: self.share.num_shares]

    def _read_block(self, shards: list[str]) -> tuple[list[SampleRef], int]:
        """The samples that are mixed now, in their order, and the number of the shard after them."""
        refs: list[SampleRef] = []
        end = asked = self.block
        while end < len(shards) and (end == self.block or len(refs) < self.order.shuffle):
            refs.extend(self._read(shards[end], end))
            end += 1
            num_missing = max(self.order.shuffle - len(refs), 0)
            num_shards = -(-num_missing * (end - self.block) // max(len(refs), 1))  # if all are like these
            self.indexer.reader.prefetch(shards[max(end, asked) : end + num_shards])
            asked = max(asked, end + num_shards)
        self.indexer.reader.prefetch(shards[max(end, asked) : 2 * end - self.block])  # about what comes next
        if self.order.shuffle:
            drawn = [self.share.number] if self.order.resample else []
            self._rng(*drawn, self.block).shuffle(refs)
        return [ref._replace(source=self.source.name) for ref in refs] if self.source.name else refs, end

    def _read(self, shard: str, number: int) -> list[SampleRef]:
        """The samples of a shard, or as many drawn with replacement, each with a chance of its own."""
        if not self.order.resample:
            return self.indexer.refs(shard, self.epoch)
        return self.indexer.drawn_refs(shard, self._rng("samples", self.share.number, number))

    def _check_others(self, shards: list[str]) -> None:
        """This share had nothing usable; the next epoch deals it other shards. Not all must be like that."""
        others = (shard for shard in self.source.shards if shard not in shards)
        if not any(self.indexer.refs(shard, self.epoch) for shard in others):
            raise ValueError(f"nothing usable in {self.source.where}")
