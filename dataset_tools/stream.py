"""The stream of batches that training reads: resumable to the batch, the same on every run."""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch

from dataset_tools.batches import Batch, Item, Lane, WorkerDataset
from dataset_tools.course import Source
from dataset_tools.data_config import DataConfig
from dataset_tools.latents import find as find_latents
from dataset_tools.left_out import LeftOut
from dataset_tools.position import Place, check, check_lanes
from dataset_tools.sources import expand
from dataset_tools.walker import state_at
from dataset_tools.workers import Workers

log = logging.getLogger(__name__)


class Stream:
    """Iterates over the batches of one rank; ranks may take different numbers of them per epoch.

    With `config.epochs` it ends after these, each of whose samples it yields once; `has_ended` then says
    that the batch taken last was the last one. Without, it goes on for ever.

    Two ways to share the data among ranks and workers (`config.split`):
    - "shards": each worker of each rank reads its own shards, dealt anew every epoch. Needs one per worker.
    - "samples": all walk the same global batches of batch_size · world_size rows and decode their own rows.
      The sequence of global batches then depends neither on the number of ranks nor on that of workers.
    "auto" takes "shards" where there are enough of them, else "samples", and says so.

    With `config.resample` shards are drawn with replacement, by each worker from all of them.

    Workers begin to read at the first batch that is asked for or, before that, with `start`; the batches are
    the same. Whoever starts a stream closes it, also when it was never iterated over.

    `left_out` counts and names what cannot be used. `taken` counts the samples of each source of
    `config.sources` that this rank has had since the run's first start. `wait_s` is the time in seconds that
    the consumer has waited for batches. `latents`: what there is in the place of pictures, or None; a
    consumer that needs less of it may say so by `Latents.only` before it iterates.
    Raises ValueError or FileNotFoundError, in one line, for a config that cannot work, when made; ValueError
    when it turns out on reading that nothing is usable.
    """

    def __init__(self, config: DataConfig, *, rank: int = 0, world_size: int = 1, seed: int = 0):
        config.check()
        self.config = config
        self.sources = _sources(config)
        self.latents = find_latents([shard for source in self.sources for shard in source.shards])
        if self.latents is not None:
            self.latents.check(config)
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.by_samples = self._split_by_samples()
        self.left_out = LeftOut()
        self.taken: Counter[str] = Counter()
        self.wait_s = 0.0
        self._lanes = [Lane() for _ in range(1 if self.by_samples else self._num_lanes)]
        self._next_lane = 0
        self._epoch = 0
        self._undecodable_since: int | None = None
        self._borrowed: Batch | None = None
        self._workers: Workers[Item] | None = None
        self.has_ended = False

    @property
    def is_exact(self) -> bool:
        """Whether there is an end, after whole epochs."""
        return self.config.epochs is not None

    def start(self) -> None:
        """Let the workers, if there are any, begin to read after the batch that was taken last."""
        if self._workers is None and self.config.num_workers:
            config = self.config
            self._workers = Workers(self._data_set(), config.num_workers, config.prefetch, pinning())

    def close(self) -> None:
        """End the workers at once. What they have read ahead is read again if the stream goes on."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()

    def __iter__(self) -> Iterator[Batch]:
        """Go on after the batch that was taken last, or that `load_state_dict` says."""
        self.start()
        items: Iterator[Item] = self._workers or map(pinning(), self._data_set().items())
        self.has_ended = False
        ahead: list[Item] = []  # with an end: a batch that is held back until it is known whether one follows
        try:
            while not self.has_ended:
                begin = time.perf_counter()
                item = next(items, None)
                self.wait_s += time.perf_counter() - begin
                self.has_ended = item is None
                taken, ahead = self._hold_back(ahead, item)
                for batch in [self._take(each) for each in taken]:
                    if batch is not None:  # so it is for one at most
                        yield batch
        finally:
            if items is self._workers:
                self.close()

    def _hold_back(self, ahead: list[Item], item: Item | None) -> tuple[list[Item], list[Item]]:
        """What can be taken now that `item` has come (None: the end), and what is held back."""
        if item is None:
            return ahead, []
        if not self.is_exact:
            return [item], []
        if item.batch is not None and any(each.batch is not None for each in ahead):
            return ahead, [item]
        return [], [*ahead, item]

    def any_batch(self) -> Batch:
        """One picture with share 0, for a rank that has none of its own when the others take a step."""
        if self._borrowed is None:  # such a rank may need it a hundred times, and shards are slow to list
            self._borrowed = next(iter(Stream(self.config.in_order(batch_size=1), seed=self.seed)))
        return cast(Batch, {**self._borrowed, "share": 0.0})

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch taken last, as plain data; batches fetched ahead do not count.

        Every rank has its own when split by shards; by samples only what they have left out differs.
        """
        return {
            "walk": self._walk(),
            "lanes": [lane._asdict() for lane in self._lanes],
            "next_lane": self._next_lane,
            "epoch": self._epoch,
            "taken": dict(self.taken),
            "left_out": {kind: dict(found) for kind, found in self.left_out.marks.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken.

        If the data set or a setting that orders it has changed since, the position means nothing any more:
        then the log says what changed, and reading goes on with the next epoch. Raises ValueError, in one
        line, for what is no such state.
        """
        check(state)
        self.close()
        now, then = self._walk(), state["walk"]
        changed = sorted(key for key in now if now[key] != then.get(key))
        if changed:
            epoch = state["epoch"] + 1
            log.warning("data: %s changed since the checkpoint; going on with epoch %d", changed, epoch)
            self._lanes = [Lane(state_at(epoch, len(self.sources))) for _ in self._lanes]
            self._next_lane, self._epoch = 0, epoch
        else:
            shards = {shard for source in self.sources for shard in source.shards}
            place = Place(len(self.sources), shards, set(self.config.buckets().sizes))
            check_lanes(state, len(self._lanes), place)
            self._lanes = [Lane(**lane) for lane in state["lanes"]]
            self._next_lane, self._epoch = state["next_lane"], state["epoch"]
        self.taken = Counter(state["taken"])
        self.left_out.marks = {kind: dict(found) for kind, found in state["left_out"].items()}

    def add_counts(self, state: dict[str, Any]) -> None:
        """Count, besides its own, what a rank had read and left out that there is no more, by its state.

        Raises ValueError, in one line, for what is no such state.
        """
        check(state)
        self.taken.update(state["taken"])
        self.left_out.add(state["left_out"])

    @property
    def _key(self) -> str:
        return "sources" if self.config.sources else "shards"

    @property
    def skipped(self) -> Counter[str]:
        """How many samples (or whole shards) were left out of each kind, since the run's first start."""
        return self.left_out.counts()

    @property
    def _num_lanes(self) -> int:
        return max(1, self.config.num_workers)

    def _split_by_samples(self) -> bool:
        consumers = self.world_size * self._num_lanes
        fewest = min(self.sources, key=lambda source: len(source.shards))
        whose = f" of {fewest.name}" if fewest.name else ""
        which = f"{len(fewest.shards)} shards{whose} for {self.world_size} ranks x {self._num_lanes} workers"
        is_enough = self.config.resample or len(fewest.shards) >= consumers
        if self.config.split == "shards" and not is_enough:
            raise ValueError(f"data.split=shards: {which}; use data.split=samples, or fewer data.num_workers")
        if self.config.split == "auto" and not is_enough:
            if self.rank == 0:
                log.info("data: %s: all read every shard and decode their own samples (split=samples)", which)
            return True
        return self.config.split == "samples"

    def _data_set(self) -> WorkerDataset:
        return WorkerDataset(
            self.config,
            self.sources,
            self.rank,
            self.world_size,
            self.seed,
            self.by_samples,
            list(self._lanes),
            self._next_lane,
            self.latents,
        )

    def _take(self, item: Item) -> Batch | None:
        """Note what an item says. Raises ValueError when the data set turns out to be unusable."""
        for skipped in item.skipped:
            self.left_out.note(skipped)
        if item.failure:
            raise OSError(item.failure)
        if item.error:
            raise ValueError(f"data.{self._key}: {item.error}: {self.left_out}")
        snapshot = item.snapshot or self._lanes[item.lane].snapshot
        self._lanes[item.lane] = Lane(snapshot, item.number + 1)
        self._next_lane = (item.lane + 1) % len(self._lanes)
        self._epoch = max(self._epoch, item.epoch)
        if item.batch is not None:
            self.taken.update(item.batch.get("sources", ()))
            self._undecodable_since = None
        elif self._undecodable_since is None:
            self._undecodable_since = item.epoch
        elif item.epoch >= self._undecodable_since + 2 and not self.is_exact:  # at least one whole epoch
            where = ", ".join(source.where for source in self.sources)
            raise ValueError(f"data.{self._key}: no picture can be decoded in {where}: {self.left_out}")
        return item.batch

    def _walk(self) -> dict[str, Any]:
        """All that the sequence of batches depends on."""
        config = self.config
        walk = {
            "seed": self.seed,
            "shards": _digest(self.sources),
            "by_samples": self.by_samples,
            "image_size_px": config.image_size_px,
            "multiple_px": config.multiple_px,
            "aspect_ratios": [str(ratio) for ratio in config.aspect_ratios],
            "inverse_ratios": config.inverse_ratios,
            "random_ratio": config.random_ratio,
            "filters": [[each.field, each.op, each.value] for each in config.filters],
            "captions": [config.caption, config.alternative_caption, config.missing_caption],
            "max_megapixels": config.max_megapixels,
            "shuffle": config.shuffle,
            "exact": self.is_exact,
            "resample": config.resample,
        }
        if self.by_samples:
            return walk | {"rows": config.batch_size * self.world_size}
        return walk | {"rows": config.batch_size, "ranks": self.world_size, "workers": self._num_lanes}


def _sources(config: DataConfig) -> list[Source]:
    """The shards of every source. Raises FileNotFoundError or ValueError for those that cannot be listed."""
    key = "data.sources" if config.sources else "data.shards"
    return [
        Source(expand(each.shards, key, config.allow_commands), each.name, each.weight, str(each.shards))
        for each in config.named_sources()
    ]


def _digest(sources: list[Source]) -> str:
    """What stands for the names of all shards in the state: each rank saves one, of perhaps 100,000 names."""
    named = [[source.name, source.weight, *source.shards] for source in sources]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def pinning() -> Callable[[Item], Item]:
    """Puts an item into memory that a GPU copies from while others compute; without a GPU, leaves it alone.

    For any thread: each starts out with the first GPU, on which the other ranks' processes have no business.
    """
    if not torch.cuda.is_available():
        return lambda item: item
    device = torch.cuda.current_device()

    def pinned(item: Item) -> Item:
        if item.batch is None:
            return item
        with torch.cuda.device(device):
            tensors = {k: v.pin_memory() for k, v in item.batch.items() if isinstance(v, torch.Tensor)}
        return item._replace(batch=cast(Batch, {**item.batch, **tensors}))

    return pinned
