"""References to samples: all that batches are formed from, without the pictures' bytes."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, BinaryIO, NamedTuple

from dataset_tools.buckets import Buckets, Size
from dataset_tools.data_config import DataConfig
from dataset_tools.fetch import ShardReader
from dataset_tools.images import check_claim, check_size, image_size
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.latent_facts import FACTS_NAME
from dataset_tools.latents import Latents
from dataset_tools.records import Broken, Sample, check_caption, claimed_size, read_samples
from dataset_tools.sources import one_line
from dataset_tools.tar_members import LATENTS, MAX_MEMBER_BYTES

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
    epoch: int  # of the source, or a number drawn: the sample's chance depends on it
    source: str = ""  # name, if there are several


class Skipped(NamedTuple):
    """Something left out: a shard (no key in the name), a sample, or the filtered of a shard."""

    kind: Kind
    name: str
    reason: str
    num_samples: int = 1


Report = Callable[[Skipped], None]


def sample_rng(seed: int, epoch: int, key: str, purpose: str) -> Random:
    """Randomness of one sample in one epoch, whoever draws it: it depends on nothing but the arguments."""
    return Random(f"{seed}/{epoch}/{key}/{purpose}")


class ShardIndexer:
    """Lists the usable samples of a shard and tells of the others.

    latents: what the shards hold in the place of pictures, if they do.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        reader: ShardReader,
        report: Report,
        latents: Latents | None = None,
    ):
        self.config = config
        self.buckets: Buckets = config.buckets()
        self.seed = seed
        self.reader = reader
        self.report = report
        self.latents = latents
        self._remembered: dict[str, list[tuple[Sample, Size]]] = {}
        self._num_remembered = 0

    def refs(self, shard: str, epoch: int) -> list[SampleRef]:
        """The usable samples in the order of the shard; none when it cannot be had."""
        return [self._ref(sample, picture, epoch) for sample, picture in self._samples(shard)]

    def drawn_refs(self, shard: str, rng: Random) -> list[SampleRef]:
        """As many, drawn with replacement; one that is drawn twice is cropped, flipped, … in two ways."""
        samples = self._samples(shard)
        drawn = rng.choices(samples, k=len(samples)) if samples else []
        return [self._ref(sample, picture, rng.getrandbits(48)) for sample, picture in drawn]

    def _samples(self, shard: str) -> list[tuple[Sample, Size]]:
        try:
            file = self.reader.file(shard)
        except OSError as error:
            self.report(Skipped(Kind.UNREACHABLE, shard, one_line(error)))
            return []
        samples = self._remembered.get(shard)
        if samples is None:
            samples = self._list(file, shard)
            if self._num_remembered + len(samples) <= MAX_REMEMBERED:
                self._remembered[shard] = samples
                self._num_remembered += len(samples)
        return samples

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
                self._check_kind(sample)
                self._caption(sample, alternative=False)
                size = self._picture_size(sample)
                listed.append((sample._replace(facts=self._texts(sample)), size))
            except UnusableError as error:
                self.report(Skipped(error.kind, f"{shard}:{sample.key}", one_line(error)))
            except OSError as error:
                self.report(Skipped(Kind.UNREACHABLE, f"{shard}:{sample.key}", one_line(error)))
        if num_filtered:
            self.report(Skipped(Kind.FILTERED, shard, "left out by data.filters", num_filtered))
        return listed

    def _texts(self, sample: Sample) -> dict[str, Any]:
        """The facts that captions are taken from. The others are not kept: a sample may have 256 KiB of them,
        which take up twenty times that in memory, and many thousands of samples are mixed."""
        names = (self.config.caption, self.config.alternative_caption)
        return {name: sample.facts[name] for name in names if name in sample.facts}

    def _check_kind(self, sample: Sample) -> None:
        """Raise UnusableError for latents of which nothing is known, and for a picture among latents."""
        if (sample.image_ext in LATENTS) != (self.latents is not None):
            reason = f"latents need {FACTS_NAME} beside their shard, and pictures must not have it"
            raise UnusableError(Kind.LATENTS, f"found .{sample.image_ext}: {reason}")

    def _report_broken(self, broken: Broken) -> None:
        name = f"{broken.shard}:{broken.key}" if broken.key else broken.shard
        self.report(Skipped(broken.kind, name, broken.reason))

    def _ref(self, sample: Sample, picture: Size, epoch: int) -> SampleRef:
        to_random_bucket, bucket_draw, to_alternative = self._draws(self.seed, epoch, sample.key)
        if self.latents is not None:  # captions are all there, but of pictures only some versions
            seen = self.latents.facts.seed, self.latents.version(epoch)
            to_random_bucket, bucket_draw, _ = self._draws(*seen, sample.key)
        if to_random_bucket < self.config.random_ratio:
            bucket = self.buckets.sizes[int(bucket_draw * len(self.buckets.sizes))]
        else:
            bucket = self.buckets.nearest(*picture)
        caption = self._caption(sample, to_alternative < self.config.alternative_share)
        where = sample.shard, sample.key, sample.image_offset, sample.image_num_bytes
        return SampleRef(*where, picture, bucket, caption, epoch)

    @staticmethod
    def _draws(seed: int, epoch: int, key: str) -> tuple[float, float, float]:
        """What decides about a sample in an epoch, each from 0 to 1."""
        rng = sample_rng(seed, epoch, key, "reference")
        return rng.random(), rng.random(), rng.random()

    def _picture_size(self, sample: Sample) -> Size:
        """(height, width) px: as `pack` noted it in the json, else from the picture's header.

        Raises UnusableError when the picture is not usable, as far as its header tells, OSError.
        """
        claimed, most = claimed_size(sample.facts), self.config.max_megapixels
        if self.latents is not None:
            return self._size_behind_latents(claimed)
        if claimed:
            with suppress(UnusableError):  # the header knows whether picture or json is to blame
                check_size(*claimed, sample.image_num_bytes, most)
                return claimed[1], claimed[0]
        try:
            head = min(HEADER_BYTES, sample.image_num_bytes)
            size = image_size(self.reader.read(sample.shard, sample.image_offset, head), most)
        except UnusableError:  # some formats need more than their first bytes
            data = self.reader.read(sample.shard, sample.image_offset, sample.image_num_bytes)
            size = image_size(data, most)
        check_claim(claimed, size)
        return size[1], size[0]

    def _size_behind_latents(self, claimed: tuple[int, int] | None) -> Size:
        """(height, width) px of the picture that latents were made of: only the json can tell."""
        if claimed is None:
            raise UnusableError(Kind.LATENTS, "the json does not say the size of the picture")
        check_size(*claimed, MAX_MEMBER_BYTES, self.config.max_megapixels)
        return claimed[1], claimed[0]

    def _caption(self, sample: Sample, alternative: bool) -> str:
        """The text of the field drawn, else of the other. Raises UnusableError."""
        fields = [name for name in (self.config.caption, self.config.alternative_caption) if name]
        for name in reversed(fields) if alternative else fields:
            text = sample.caption if name == "txt" else sample.facts.get(name)
            if isinstance(text, str):
                check_caption(text, name)
                return text
        if self.config.missing_caption == "empty":
            return ""
        raise UnusableError(
            Kind.NO_CAPTION, f"no text in {' or '.join(fields)} (data.missing_caption=empty accepts that)"
        )
