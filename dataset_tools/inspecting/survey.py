"""Looking at every sample of a shard; runs in worker processes."""

import hashlib
from contextlib import closing
from typing import NamedTuple

from dataset_tools.fetch import ShardReader
from dataset_tools.images import MAX_MEGAPIXELS, check_size, open_image, read_header
from dataset_tools.inspecting.duplicates import SIGNATURE_BYTES, signature
from dataset_tools.kinds import Kind, UnusableError
from dataset_tools.records import Broken, Sample, claimed_size, read_samples
from dataset_tools.sources import one_line
from dataset_tools.tar_members import LATENTS, MAX_MEMBER_BYTES


class Picture(NamedTuple):
    """What the survey keeps of a usable sample."""

    shard: str
    key: str
    width_px: int
    height_px: int
    ext: str
    num_bytes: int
    caption: str | None
    digest: bytes
    """Of the encoded picture: equal for identical files."""
    signature: bytes
    """Of what is seen: similar for similar pictures (duplicates.py)."""


class ShardSurvey(NamedTuple):
    """The samples of one shard and what is wrong in it."""

    pictures: list[Picture]
    broken: list[Broken]


def survey_shard(shard: str, max_megapixels: float = MAX_MEGAPIXELS) -> ShardSurvey:
    """Read and decode all of a shard, a path or URL.

    Never raises for what is wrong with it; CacheError when there is no room for a copy of it.
    """
    survey = ShardSurvey([], [])
    with closing(ShardReader()) as reader:
        try:
            file = reader.file(shard)
        except OSError as error:
            survey.broken.append(Broken(shard, "", Kind.UNREACHABLE, one_line(error)))
            return survey
        for sample in read_samples(file, shard, survey.broken.append):
            try:
                look = _look_at_latents if sample.image_ext in LATENTS else _look_at
                survey.pictures.append(look(sample, max_megapixels))
            except UnusableError as error:
                survey.broken.append(Broken(shard, sample.key, error.kind, str(error)))
    return survey


def _look_at(sample: Sample, max_megapixels: float) -> Picture:
    """Decode a sample's picture. Raises UnusableError when training would not use it."""
    data = sample.image_bytes
    header = read_header(data, max_megapixels)
    claimed = claimed_size(sample.facts)
    # Only to the pixels that a signature needs, but all of the file is decoded.
    seen = open_image(data, (64, 64), claimed=claimed, max_megapixels=max_megapixels)
    return Picture(
        shard=sample.shard,
        key=sample.key,
        width_px=header.width_px,
        height_px=header.height_px,
        ext=header.ext,
        num_bytes=len(data),
        caption=sample.caption,
        digest=hashlib.sha256(data).digest()[:16],
        signature=signature(seen),
    )


def _look_at_latents(sample: Sample, max_megapixels: float) -> Picture:
    """Read what was precomputed of a picture, whose size is in the json. Raises UnusableError."""
    from dataset_tools.latents import check_member  # torch is slow to import, in every worker

    data, claimed = sample.image_bytes, claimed_size(sample.facts)
    if claimed is None:
        raise UnusableError(Kind.LATENTS, "the json does not say the size of the picture")
    check_size(*claimed, MAX_MEMBER_BYTES, max_megapixels)  # as training does, though nothing is decoded
    check_member(sample.shard, data)
    return Picture(
        shard=sample.shard,
        key=sample.key,
        width_px=claimed[0],
        height_px=claimed[1],
        ext=sample.image_ext,
        num_bytes=len(data),
        caption=sample.caption,
        digest=hashlib.sha256(data).digest()[:16],
        signature=hashlib.sha512(data).digest()[:SIGNATURE_BYTES],  # nothing is seen that could be similar
    )
