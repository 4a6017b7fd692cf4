"""From references to batches of pixels, and the data set that data workers run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from dataset_tools.cache import CacheError
from dataset_tools.course import Order, Share, Source
from dataset_tools.data_config import DataConfig
from dataset_tools.decode import decode
from dataset_tools.fetch import ShardReader
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.latents import Latents
from dataset_tools.rows import stacked
from dataset_tools.sample_refs import Report, SampleRef, ShardIndexer, Skipped, sample_rng
from dataset_tools.sources import one_line
from dataset_tools.walker import Walker
from modules.adapters.filters import ControlFilter

SNAPSHOT_EVERY = 32
"""Batches between two states that a worker sends; those between are walked again, without decoding. One is
sent with every new block of shards, too, so that a resumed run reads none that it has left behind."""


class Batch(TypedDict):
    """Pictures of one size and what belongs to them, row by row; or, of precomputed shards, in the place of
    `images` what networks made of them (see dataset_tools.latents): which, the shards and the recipe say."""

    images: Tensor  # uint8 [B, 3, H, W]
    latents: NotRequired[Tensor]  # [B, c, h, w], of the semantic compressor
    stage_a_latents: NotRequired[Tensor]  # [B, c, h, w]
    image_embeds: NotRequired[Tensor]  # [B, 1, c]
    text_tokens: NotRequired[Tensor]  # [B, L, D], states of `captions`
    text_pooled: NotRequired[Tensor]  # [B, 1, P]
    control: NotRequired[Tensor]  # uint8 [B, c, h, w], what a control filter made of them
    captions: list[str]
    keys: list[str]
    sources: NotRequired[list[str]]  # with data.sources: their names
    share: NotRequired[float]  # with data.epochs: 1, or 0 for a row that was borrowed; see train.feed


class Item(NamedTuple):
    """What a worker sends: a batch (None: none of its pictures can be decoded) and where that was."""

    lane: int
    number: int  # of the batch in its lane
    epoch: int
    batch: Batch | None
    snapshot: dict[str, Any] | None
    skipped: list[Skipped]
    error: str = ""  # what makes the data unusable
    failure: str = ""  # what makes reading impossible


Row = dict[str, Tensor]
"""What a batch holds of one sample, by name."""
Rows = tuple[list[tuple[SampleRef, Row]], float]
"""Decoded rows of a rank, and the share that their loss counts."""
Decoder = Callable[[SampleRef, Report], Row | None]
"""Decodes a reference; None, and a report, when that fails."""


class Lane(NamedTuple):
    """How far a walk has come: a state of it, and the number of batches that were taken since the start."""

    snapshot: dict[str, Any] | None = None
    done: int = 0


@dataclass
class WorkerDataset:
    """What the workers of a rank make Items of (see dataset_tools.workers). Plain data, so picklable.

    by_samples: True: all workers of all ranks walk the same global batches of batch_size · world_size rows;
    the n-th worker takes every n-th of them and decodes the rows of its rank. False: each walks its own share
    of the shards, a lane of its own. lanes: where to go on; one, or one per worker. first: the worker's lane
    that is next. latents: what the shards hold in the place of pictures, if they do.
    """

    config: DataConfig
    sources: list[Source]
    rank: int
    world_size: int
    seed: int
    by_samples: bool
    lanes: list[Lane]
    first: int = 0
    latents: Latents | None = None

    def items(self, worker: int = 0, num_workers: int = 1) -> Iterator[Item]:
        """Those of one worker, in order."""
        skipped: list[Skipped] = []
        reader = ShardReader(self.config.cache_dir, self.config.cache_gb, self.config.allow_commands)
        indexer = ShardIndexer(self.config, self.seed, reader, skipped.append, self.latents)
        if self.by_samples:
            lane, turn, stride = 0, worker, num_workers
        else:
            lane, turn, stride = (worker + self.first) % num_workers, 0, 1
        walker = self._walker(indexer, lane, num_workers)
        first = self.rank * self.config.batch_size if self.by_samples else 0
        rows = range(first, first + self.config.batch_size)
        control = self.config.control_filter()
        start, sent = self.lanes[lane].done, None
        try:
            for refs in walker.batches():
                number = walker.num_batches - 1
                if number < start or (number - start) % stride != turn:
                    continue
                batch = make_batch(
                    refs, rows, self.config, self.seed, reader, skipped.append, control, self.latents
                )
                is_due = number % SNAPSHOT_EVERY == 0 or walker.place() != sent
                snapshot = walker.state() if is_due else None
                sent = walker.place()
                yield Item(lane, number, walker.epoch, batch, snapshot, skipped[:])
                skipped.clear()
            if skipped:  # behind the last batch
                yield Item(lane, walker.num_batches - 1, walker.epoch, None, None, skipped[:])
        except ValueError as error:
            yield Item(lane, -1, walker.epoch, None, None, skipped[:], error=str(error))
        except CacheError as error:
            yield Item(lane, -1, walker.epoch, None, None, skipped[:], failure=str(error))
        finally:
            reader.close()

    def _walker(self, indexer: ShardIndexer, lane: int, num_workers: int) -> Walker:
        """The walk of a lane, where its state says."""
        if self.by_samples:
            batch_size, share = self.config.batch_size * self.world_size, Share()
        else:
            batch_size = self.config.batch_size
            share = Share(self.rank * num_workers + lane, self.world_size * num_workers)
        order = Order(self.seed, self.config.shuffle, self.config.resample)
        end = self.config.epochs
        walker = Walker(indexer, self.sources, batch_size, share=share, order=order, num_epochs=end)
        if snapshot := self.lanes[lane].snapshot:
            walker.restore(snapshot)
        return walker


def make_batch(
    refs: list[SampleRef],
    rows: range,
    config: DataConfig,
    seed: int,
    reader: ShardReader,
    report: Report,
    control: ControlFilter | None = None,
    latents: Latents | None = None,
) -> Batch | None:
    """Decode some rows of a batch of references; None when no picture of the whole batch can be decoded.

    control: makes the control pictures of what was decoded. latents: what there is in place of pictures.

    A picture that fails gives its row to the next one of the whole batch that does not. Which one that is
    depends on the batch alone, not on who decodes which rows, and the walk goes on as if nothing had
    happened; so every rank stays in step, and a resumed run meets the same batches.

    In exact epochs (`data.epochs`) its row is missing instead, like those beyond a short batch. Whoever has
    no row left borrows one of the others', with share 0: all ranks take part in every step.
    """

    def decoded(ref: SampleRef, tell: Report) -> Row | None:
        return _decoded(ref, config, seed, reader, tell, latents)

    pick = _full_rows if config.epochs is None else _own_rows
    rows_of_rank, share = pick(refs, rows, decoded, report)
    if not rows_of_rank:
        return None
    chosen, found = zip(*rows_of_rank, strict=True)
    tensors = {name: stacked([row[name] for row in found]) for name in found[0]}
    about = {"captions": [ref.caption for ref in chosen], "keys": [ref.key for ref in chosen]}
    batch = cast(Batch, {**tensors, **about})
    if config.sources:
        batch["sources"] = [ref.source for ref in chosen]
    if config.epochs is not None:
        batch["share"] = share
    if control is not None:
        pairs = zip(batch["images"], chosen, strict=True)
        batch["control"] = torch.cat([_control(image, ref, seed, control) for image, ref in pairs])
    return batch


def _full_rows(refs: list[SampleRef], rows: range, decoded: Decoder, report: Report) -> Rows:
    """As many rows as asked for; none when no picture can be decoded."""
    tried: dict[int, Row | None] = {}
    found = []
    for row in rows:
        for place in (*range(row, len(refs)), *range(row)):
            if place not in tried:
                tried[place] = decoded(refs[place], report)
            if (row_found := tried[place]) is not None:
                found.append((refs[place], row_found))
                break
        else:
            return [], 1.0
    return found, 1.0


def _own_rows(refs: list[SampleRef], rows: range, decoded: Decoder, report: Report) -> Rows:
    """Each of these rows that can be decoded; else one of the others', whose failures their owner reports."""
    tried = ((ref, decoded(ref, report)) for ref in refs[rows.start : rows.stop])
    found = [(ref, row) for ref, row in tried if row is not None]
    if found:
        return found, 1.0
    others = (*refs[: rows.start], *refs[rows.stop :])
    for ref in others:
        if (row := decoded(ref, lambda skipped: None)) is not None:
            return [(ref, row)], 0.0
    return [], 0.0


def _control(image: Tensor, ref: SampleRef, seed: int, control: ControlFilter) -> Tensor:
    """The control picture, uint8 [1, c, h, w], of one picture [3, H, W], with chance of the sample's own."""
    chance = sample_rng(seed, ref.epoch, ref.key, "control").getrandbits(63)
    made = control(image[None] / 255, [torch.Generator().manual_seed(chance)])
    return (made * 255).round().byte()


def pixels(data: bytes, ref: SampleRef, config: DataConfig, seed: int) -> Tensor:
    """The pixels of a reference, uint8 [3, *bucket], from the file of the picture. Raises UnusableError."""
    rng = sample_rng(seed, ref.epoch, ref.key, "picture")
    how = config.crop, config.flip, rng, config.max_megapixels
    return decode(data, ref.picture, ref.bucket, *how)


def _decoded(
    ref: SampleRef,
    config: DataConfig,
    seed: int,
    reader: ShardReader,
    report: Report,
    latents: Latents | None,
) -> Row | None:
    """The pixels of a reference, uint8 [3, *bucket], or its latents; None, and a report, without them."""
    try:
        if latents is not None:
            return latents.read(
                lambda start, count: reader.read(ref.shard, ref.offset + start, count),
                *(ref.num_bytes, ref.bucket, ref.epoch, ref.caption),
            )
        return {"images": pixels(reader.read(ref.shard, ref.offset, ref.num_bytes), ref, config, seed)}
    except OSError as error:
        report(Skipped(Kind.UNREACHABLE, ref.shard, one_line(error)))
    except UnusableError as error:
        report(Skipped(error.kind, f"{ref.shard}:{ref.key}", one_line(error)))
    return None
