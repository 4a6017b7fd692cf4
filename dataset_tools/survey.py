"""Looking at every sample of a shard; runs in worker processes."""

import hashlib
from contextlib import closing
from typing import NamedTuple

from dataset_tools.duplicates import signature
from dataset_tools.fetch import ShardReader
from dataset_tools.images import open_image, read_header
from dataset_tools.records import Broken, Sample, read_samples


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


def survey_shard(shard: str) -> ShardSurvey:
    """Read and decode all of a shard, a path or URL. Never raises for what is wrong with it."""
    survey = ShardSurvey([], [])
    with closing(ShardReader()) as reader:
        try:
            file = reader.file(shard)
        except (OSError, ValueError) as error:
            survey.broken.append(Broken(shard, "", str(error)))
            return survey
        for sample in read_samples(file, shard, survey.broken.append):
            try:
                survey.pictures.append(_look_at(sample))
            except ValueError as error:
                survey.broken.append(Broken(shard, sample.key, str(error)))
    return survey


def _look_at(sample: Sample) -> Picture:
    """Decode a sample's picture. Raises ValueError when it cannot be, or when its json is not true of it."""
    data = sample.image_bytes
    header = read_header(data)
    seen = open_image(data, at_least=(64, 64))  # all of the file is decoded, only to fewer pixels
    claimed = (sample.facts.get("width_px"), sample.facts.get("height_px"))
    size = (header.width_px, header.height_px)
    if claimed not in ((None, None), size):
        raise ValueError(
            f"the json says {claimed[0]} x {claimed[1]} px, the picture has {size[0]} x {size[1]}"
        )
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
