"""The stream of batches that training reads: endless, resumable to the batch, the same on every run."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from dataset_tools.batches import Batch, Item, Lane, WorkerDataset
from dataset_tools.data_config import DataConfig
from dataset_tools.latents import find as find_latents
from dataset_tools.left_out import LeftOut
from dataset_tools.sources import expand

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

    `left_out` counts and names what cannot be used. `wait_s` is the time in seconds that the consumer has
    waited for batches. `latents`: what there is in the place of pictures, or None; a consumer that needs less
    of it may say so by `Latents.only` before it iterates.
    Raises ValueError or FileNotFoundError, in one line, for a config that cannot work, when made; ValueError
    when it turns out on reading that nothing is usable.
    """

    def __init__(self, config: DataConfig, *, rank: int = 0, world_size: int = 1, seed: int = 0):
        config.check()
        self.config = config
        self.shards = expand(config.shards)
        self.latents = find_latents(self.shards)
        if self.latents is not None:
            self.latents.check(config)
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.by_samples = self._split_by_samples()
        self.left_out = LeftOut()
        self.wait_s = 0.0
        self._lanes = [Lane() for _ in range(1 if self.by_samples else self._num_lanes)]
        self._next_lane = 0
        self._epoch = 0
        self._undecodable_since: int | None = None
        self.has_ended = False

    @property
    def is_exact(self) -> bool:
        """Whether there is an end, after whole epochs."""
        return self.config.epochs is not None

    def __iter__(self) -> Iterator[Batch]:
        """Go on after the batch that was taken last, or that `load_state_dict` says."""
        items = iter(self._loader())
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
            del items  # ends the workers at once; a traceback that someone keeps would keep them

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
        batch = next(iter(Stream(self.config.in_order(batch_size=1), seed=self.seed)))
        batch["share"] = 0.0
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch taken last, as plain data; batches fetched ahead do not count.

        Every rank has its own when split by shards; by samples all ranks have the same.
        """
        return {
            "walk": self._walk(),
            "lanes": [lane._asdict() for lane in self._lanes],
            "next_lane": self._next_lane,
            "epoch": self._epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken.

        If the data set or a setting that orders it has changed since, the position means nothing any more:
        then the log says what changed, and reading goes on with the next epoch.
        """
        now, then = self._walk(), state["walk"]
        changed = sorted(key for key in now if now[key] != then.get(key))
        if changed:
            epoch = state["epoch"] + 1
            log.warning("data: %s changed since the checkpoint; going on with epoch %d", changed, epoch)
            start = {"epoch": epoch, "block": 0, "offset": 0, "num_batches": 0, "waiting": []}
            self._lanes = [Lane(start) for _ in self._lanes]
            self._next_lane, self._epoch = 0, epoch
        else:
            self._lanes = [Lane(**lane) for lane in state["lanes"]]
            self._next_lane, self._epoch = state["next_lane"], state["epoch"]

    @property
    def skipped(self) -> Counter[str]:
        """How many samples (or whole shards) were left out of each kind, since this process started."""
        return self.left_out.counts()

    @property
    def _num_lanes(self) -> int:
        return max(1, self.config.num_workers)

    def _split_by_samples(self) -> bool:
        consumers = self.world_size * self._num_lanes
        which = f"{len(self.shards)} shards for {self.world_size} ranks x {self._num_lanes} workers"
        if self.config.split == "shards" and len(self.shards) < consumers:
            raise ValueError(f"data.split=shards: {which}; use data.split=samples, or fewer data.num_workers")
        if self.config.split == "auto" and len(self.shards) < consumers:
            if self.rank == 0:
                log.info("data: %s: all read every shard and decode their own samples (split=samples)", which)
            return True
        return self.config.split == "samples"

    def _loader(self) -> DataLoader:
        workers = WorkerDataset(
            self.config,
            self.shards,
            self.rank,
            self.world_size,
            self.seed,
            self.by_samples,
            list(self._lanes),
            self._next_lane,
            self.latents,
        )
        return DataLoader(
            workers,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.config.num_workers,
            prefetch_factor=self.config.prefetch if self.config.num_workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else it would draw from torch's own when it is opened
        )

    def _take(self, item: Item) -> Batch | None:
        """Note what an item says. Raises ValueError when the data set turns out to be unusable."""
        for skipped in item.skipped:
            self.left_out.note(skipped)
        if item.error:
            raise ValueError(f"data.shards: {item.error} in {self.config.shards}: {self.left_out}")
        snapshot = item.snapshot or self._lanes[item.lane].snapshot
        self._lanes[item.lane] = Lane(snapshot, item.number + 1)
        self._next_lane = (item.lane + 1) % len(self._lanes)
        self._epoch = max(self._epoch, item.epoch)
        if item.batch is not None:
            self._undecodable_since = None
        elif self._undecodable_since is None:
            self._undecodable_since = item.epoch
        elif item.epoch >= self._undecodable_since + 2 and not self.is_exact:  # at least one whole epoch
            raise ValueError(
                f"data.shards: no picture can be decoded in {self.config.shards}: {self.left_out}"
            )
        return item.batch

    def _walk(self) -> dict[str, Any]:
        """All that the sequence of batches depends on."""
        config = self.config
        walk = {
            "seed": self.seed,
            "shards": self.shards,
            "by_samples": self.by_samples,
            "image_size_px": config.image_size_px,
            "multiple_px": config.multiple_px,
            "aspect_ratios": [str(ratio) for ratio in config.aspect_ratios],
            "inverse_ratios": config.inverse_ratios,
            "random_ratio": config.random_ratio,
            "filters": [[each.field, each.op, each.value] for each in config.filters],
            "captions": [config.caption, config.alternative_caption, config.missing_caption],
            "shuffle": config.shuffle,
            "exact": self.is_exact,
        }
        if self.by_samples:
            return walk | {"rows": config.batch_size * self.world_size}
        return walk | {"rows": config.batch_size, "ranks": self.world_size, "workers": self._num_lanes}


def _as_it_is(item: Any) -> Any:
    return item
