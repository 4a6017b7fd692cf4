"""The walk through a data set that forms batches: epochs, shuffling, buckets. It reads no pixels."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from dataset_tools.buckets import Batcher
from dataset_tools.sample_refs import SampleRef, ShardIndexer


class Walker:
    """Goes through shards and forms batches of references of one bucket each.

    shards: all of them; this walk takes every num_shares-th of each epoch's order, in the first epoch
    beginning with the share-th. batch_size: references per batch. shuffle: how many samples at least are
    mixed with each other (whole shards); 0 keeps the order of shards and samples. num_epochs: None: goes on
    for ever, and samples that do not fill a batch at the end of an epoch wait for those of the next, so none
    is lost and none is seen twice in an epoch. Else it ends after so many epochs, and each of them ends with
    short batches: an epoch's batches hold each sample once.

    The walk is a function of its arguments: the same in every process.
    """

    def __init__(
        self,
        indexer: ShardIndexer,
        shards: Sequence[str],
        batch_size: int,
        *,
        share: int = 0,
        num_shares: int = 1,
        seed: int = 0,
        shuffle: int = 0,
        num_epochs: int | None = None,
    ):
        self.indexer = indexer
        self.shards = shards
        self.share, self.num_shares = share, num_shares
        self.seed = seed
        self.shuffle = shuffle
        self.num_epochs = num_epochs
        self.batcher: Batcher[SampleRef] = Batcher(indexer.buckets.sizes, batch_size)
        self.epoch = 0
        self.block = 0  # first of the shards, in this epoch's order, that are mixed now
        self.offset = 0  # next sample of the block
        self.num_batches = 0

    def batches(self) -> Iterator[list[SampleRef]]:
        """Yield batches, to the end if there is one. Raises ValueError when no sample is usable."""
        while self.num_epochs is None or self.epoch < self.num_epochs:
            shards = self._shards_of_epoch()
            is_usable = self.block + self.offset > 0  # else there would be no position in the epoch
            while self.block < len(shards):
                refs, next_block = self._read_block(shards)
                is_usable |= bool(refs)
                while self.offset < len(refs):
                    self.batcher.add(refs[self.offset].bucket, refs[self.offset])
                    self.offset += 1
                    if full := self.batcher.pop():
                        self.num_batches += 1
                        yield full[1]
                self.block, self.offset = next_block, 0
            if not is_usable:
                self._check_others(shards)
            while self.num_epochs is not None and (rest := self.batcher.pop_rest()):
                self.num_batches += 1
                yield rest
            self.epoch, self.block = self.epoch + 1, 0

    def state(self) -> dict[str, Any]:
        """Where the walk is, as plain data; the references that wait for a full batch are part of it."""
        waiting = [tuple(ref) for refs in self.batcher.waiting.values() for ref in refs]
        return {
            "epoch": self.epoch,
            "block": self.block,
            "offset": self.offset,
            "num_batches": self.num_batches,
            "waiting": waiting,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, in a walk with the same arguments."""
        self.epoch, self.block, self.offset = state["epoch"], state["block"], state["offset"]
        self.num_batches = state["num_batches"]
        for fields in state["waiting"]:
            ref = SampleRef(*fields)
            (height, width), picture = ref.bucket, ref.picture  # lists, if the state was kept as json
            ref = ref._replace(picture=(picture[0], picture[1]), bucket=(height, width))
            self.batcher.add(ref.bucket, ref)

    def _shards_of_epoch(self) -> list[str]:
        order = list(self.shards)
        if self.shuffle:
            Random(f"{self.seed}/{self.epoch}/shards").shuffle(order)
        first = (self.share + self.epoch) % self.num_shares  # so that no share has broken shards for ever
        return order[first :: self.num_shares]

    def _read_block(self, shards: list[str]) -> tuple[list[SampleRef], int]:
        """The samples that are mixed now, in their order, and the number of the shard after them."""
        refs: list[SampleRef] = []
        end = self.block
        while end < len(shards) and (end == self.block or len(refs) < self.shuffle):
            refs.extend(self.indexer.refs(shards[end], self.epoch))
            end += 1
        self.indexer.reader.prefetch(shards[end : 2 * end - self.block])  # about what comes next
        if self.shuffle:
            Random(f"{self.seed}/{self.epoch}/{self.block}").shuffle(refs)
        return refs, end

    def _check_others(self, shards: list[str]) -> None:
        """This share had nothing usable; the next epoch deals it other shards. Not all must be like that."""
        others = (shard for shard in self.shards if shard not in shards)
        if not any(self.indexer.refs(shard, self.epoch) for shard in others):
            raise ValueError("nothing usable")
