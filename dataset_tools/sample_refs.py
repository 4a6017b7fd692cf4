"""References to samples: all that batches are formed from, without the pictures' bytes."""

from collections.abc import Callable
from random import Random
from typing import Any, BinaryIO, NamedTuple

from dataset_tools.buckets import Buckets, Size
from dataset_tools.data_config import DataConfig
from dataset_tools.fetch import ShardReader
from dataset_tools.images import image_size
from dataset_tools.records import Broken, Sample, read_samples
from dataset_tools.sources import one_line

HEADER_BYTES = 1 << 16  # enough to find the size of nearly every picture
MAX_REMEMBERED = 50_000  # samples whose listing is kept in memory, about 1 kB each


class SampleRef(NamedTuple):
    """Where a picture lies, and what was decided about it in this epoch."""

    shard: str
    key: str
    offset: int
    num_bytes: int
    picture: Size  # (height, width) px by the header
    bucket: Size
    caption: str
    facts: dict[str, Any]
    epoch: int


class Skipped(NamedTuple):
    """Something left out: a shard, a sample, a picture (found when decoding), or the filtered of a shard."""

    kind: str
    name: str
    reason: str
    num_samples: int = 1


Report = Callable[[Skipped], None]


def sample_rng(seed: int, epoch: int, key: str, purpose: str) -> Random:
    """Randomness of one sample in one epoch, whoever draws it: it depends on nothing but the arguments."""
    return Random(f"{seed}/{epoch}/{key}/{purpose}")


class ShardIndexer:
    """Lists the usable samples of a shard and tells of the others."""

    def __init__(self, config: DataConfig, seed: int, reader: ShardReader, report: Report):
        self.config = config
        self.buckets: Buckets = config.buckets()
        self.seed = seed
        self.reader = reader
        self.report = report
        self._remembered: dict[str, list[tuple[Sample, Size]]] = {}
        self._num_remembered = 0

    def refs(self, shard: str, epoch: int) -> list[SampleRef]:
        """The usable samples in the order of the shard; none when it cannot be had."""
        try:
            file = self.reader.file(shard)
        except OSError as error:
            self.report(Skipped("shard", shard, one_line(error)))
            return []
        samples = self._remembered.get(shard)
        if samples is None:
            samples = self._list(file, shard)
            if self._num_remembered + len(samples) <= MAX_REMEMBERED:
                self._remembered[shard] = samples
                self._num_remembered += len(samples)
        return [self._ref(sample, picture, epoch) for sample, picture in samples]

    def _list(self, file: BinaryIO, shard: str) -> list[tuple[Sample, Size]]:
        """The usable samples of a shard with the (height, width) px of their pictures; reports the others."""
        listed = []
        num_filtered = 0
        file.seek(0)
        for sample in read_samples(file, shard, self._report_broken, with_pictures=False):
            if not all(condition.accepts(sample.facts) for condition in self.config.filters):
                num_filtered += 1
                continue
            try:
                self._caption(sample, alternative=False)
                listed.append((sample, self._picture_size(sample)))
            except (ValueError, OSError) as error:
                self.report(Skipped("sample", f"{shard}:{sample.key}", one_line(error)))
        if num_filtered:
            self.report(Skipped("filtered", shard, "left out by data.filters", num_filtered))
        return listed

    def _report_broken(self, broken: Broken) -> None:
        if broken.key:
            self.report(Skipped("sample", f"{broken.shard}:{broken.key}", broken.reason))
        else:
            self.report(Skipped("shard", broken.shard, broken.reason))

    def _ref(self, sample: Sample, picture: Size, epoch: int) -> SampleRef:
        rng = sample_rng(self.seed, epoch, sample.key, "reference")
        to_random_bucket, bucket_draw, to_alternative = rng.random(), rng.random(), rng.random()
        if to_random_bucket < self.config.random_ratio:
            bucket = self.buckets.sizes[int(bucket_draw * len(self.buckets.sizes))]
        else:
            bucket = self.buckets.nearest(*picture)
        caption = self._caption(sample, to_alternative < self.config.alternative_share)
        where = sample.shard, sample.key, sample.image_offset, sample.image_num_bytes
        return SampleRef(*where, picture, bucket, caption, sample.facts, epoch)

    def _picture_size(self, sample: Sample) -> Size:
        """(height, width) px: as `pack` noted it in the json, else from the picture's header.

        Raises ValueError or OSError when the header is not sound.
        """
        height, width = sample.facts.get("height_px"), sample.facts.get("width_px")
        if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
            return height, width
        try:
            head = min(HEADER_BYTES, sample.image_num_bytes)
            width, height = image_size(self.reader.read(sample.shard, sample.image_offset, head))
        except ValueError:  # some formats need more than their first bytes
            data = self.reader.read(sample.shard, sample.image_offset, sample.image_num_bytes)
            width, height = image_size(data)
        return height, width

    def _caption(self, sample: Sample, alternative: bool) -> str:
        """The text of the field drawn, else of the other. Raises ValueError when there is none."""
        fields = [name for name in (self.config.caption, self.config.alternative_caption) if name]
        for name in reversed(fields) if alternative else fields:
            text = sample.caption if name == "txt" else sample.facts.get(name)
            if isinstance(text, str):
                return text
        if self.config.missing_caption == "empty":
            return ""
        raise ValueError(f"no text in {' or '.join(fields)} (data.missing_caption=empty accepts that)")
