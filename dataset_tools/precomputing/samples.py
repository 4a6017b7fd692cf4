"""Samples of pictures become samples of latents: through the networks by buckets, then in their own order."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from torch import Tensor

from dataset_tools.batches import pixels
from dataset_tools.buckets import Size
from dataset_tools.fetch import ShardReader
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.latent_facts import Facts
from dataset_tools.latents import packed
from dataset_tools.precomputing.networks import Networks
from dataset_tools.precomputing.settings import Settings
from dataset_tools.records import Sample, read_samples
from dataset_tools.rows import stacked
from dataset_tools.sample_refs import Report, SampleRef, ShardIndexer, Skipped
from dataset_tools.shards import sample_members
from dataset_tools.sources import one_line
from dataset_tools.tar_members import LATENTS
from modules.weights.tensors import tensor_bytes

BATCHES_TOGETHER = 16  # so many batches of samples are sorted into buckets and held in memory at a time
T = TypeVar("T")


class Row(NamedTuple):
    """One version of one sample's picture. number: of the sample among those that are made together."""

    number: int
    version: int
    ref: SampleRef


class SampleMaker:
    """Makes the samples of shards, with threads that decode pictures while the networks work."""

    def __init__(
        self,
        settings: Settings,
        networks: Networks,
        facts: Facts,
        reader: ShardReader,
        batch_size: int,
        num_threads: int,
    ) -> None:
        self.settings, self.networks, self.facts, self.reader = settings, networks, facts, reader
        self.batch_size = batch_size
        self.pool = ThreadPoolExecutor(num_threads)
        self.lock = threading.Lock()  # of the reader

    def of(self, shard: str, report: Report) -> Iterator[tuple[str, dict[str, bytes], tuple[int, int]]]:
        """The key, members and picture's (width, height) px of every sample that can be used, in order.

        What cannot be used is reported.
        """
        data = self.settings.data
        indexer = ShardIndexer(data, self.facts.seed, self.reader, report)
        versions = [indexer.refs(shard, version) for version in range(self.facts.versions)]
        file = self.reader.file(shard)
        file.seek(0)
        listed = read_samples(file, shard, lambda broken: None, with_pictures=False)
        samples = {sample.image_offset: sample for sample in listed}
        for chunk in parts(list(zip(*versions, strict=True)), BATCHES_TOGETHER * self.batch_size):
            made = self._tensors(chunk, [samples[refs[0].offset] for refs in chunk], report)
            for refs, tensors in zip(chunk, made, strict=True):
                if tensors is not None:
                    height, width = refs[0].picture
                    sample = samples[refs[0].offset]
                    facts = {**sample.facts, "width_px": width, "height_px": height}
                    members = sample_members(*self._content(tensors), sample.caption, facts)
                    yield sample.key, members, (width, height)

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(cancel_futures=True)

    def _content(self, tensors: dict[str, Tensor]) -> tuple[bytes, str]:
        data = tensor_bytes(tensors)
        return (packed(data), LATENTS[1]) if self.facts.compressed else (data, LATENTS[0])

    def _tensors(
        self, chunk: Sequence[Sequence[SampleRef]], samples: Sequence[Sample], report: Report
    ) -> list[dict[str, Tensor] | None]:
        """What the networks make of some samples; None of one that cannot be used."""
        made: list[dict[str, Tensor] | None] = [{} for _ in chunk]

        def fail(row: Row, kind: Kind, error: Exception) -> None:
            made[row.number] = None
            report(Skipped(kind, f"{row.ref.shard}:{row.ref.key}", one_line(error)))

        if self.networks.sees_pictures:
            rows = [Row(n, v, ref) for n, refs in enumerate(chunk) for v, ref in enumerate(refs)]
            for batch, images in self._decoded(self._batches(rows), fail):
                for name, tensors in self.networks.pictures(images).items():
                    for row, tensor in zip(batch, tensors, strict=True):
                        if not tensor.isfinite().all():
                            fail(row, Kind.LATENTS, ValueError(f"{name} made numbers that are not finite"))
                        elif (own := made[row.number]) is not None:
                            own[f"{name}.{row.version}"] = tensor.clone()
        for own, states in zip(made, self._states(samples), strict=True):
            if own is not None:
                own.update(states)
        return made

    def _batches(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        by_bucket: dict[Size, list[Row]] = {}
        for row in rows:
            by_bucket.setdefault(row.ref.bucket, []).append(row)
        for alike in by_bucket.values():
            yield from parts(alike, self.batch_size)

    def _decoded(
        self, batches: Iterator[list[Row]], fail: Callable[[Row, Kind, Exception], None]
    ) -> Iterator[tuple[list[Row], Tensor]]:
        """The batches with their pictures [B, 3, H, W], decoded one batch ahead."""
        ahead: list[tuple[Row, Future[Tensor]]] = []
        while True:
            now, ahead = ahead, [(row, self.pool.submit(self._decode, row.ref)) for row in next(batches, [])]
            if not now and not ahead:
                return
            images: list[tuple[Row, Tensor]] = []
            for row, future in now:
                try:
                    images.append((row, future.result()))
                except UnusableError as error:
                    fail(row, error.kind, error)
                except OSError as error:
                    fail(row, Kind.UNREACHABLE, error)
            if images:
                yield [row for row, _ in images], stacked([image for _, image in images])

    def _decode(self, ref: SampleRef) -> Tensor:
        """The pixels that training would see in the epoch of the reference."""
        with self.lock:
            data = self.reader.read(ref.shard, ref.offset, ref.num_bytes)
        return pixels(data, ref, self.settings.data, self.facts.seed)

    def _states(self, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        """The states of the captions of each sample, by their names in it."""
        own = [[text for field in self.facts.captions if (text := text_of(each, field))] for each in samples]
        states: dict[str, dict[str, Tensor]] = {}
        different = dict.fromkeys(text for texts in own for text in texts)
        for some in parts(list(different), self.batch_size):
            states |= zip(some, self.networks.captions(some), strict=True)
        return [{name: tensor for text in texts for name, tensor in states[text].items()} for texts in own]


def text_of(sample: Sample, field: str) -> str:
    """A sample's text in `txt` or a field of its json; empty when there is none."""
    found = sample.caption if field == "txt" else sample.facts.get(field)
    return found if isinstance(found, str) else ""


def parts(items: Sequence[T], length: int) -> Iterator[list[T]]:
    """The items in lists of at most so many."""
    for start in range(0, len(items), length):
        yield list(items[start : start + length])
