"""From shards of 1024-px JPEGs to bucketed batches of 768 px: samples per second of one core.

All in one process, in seconds of its own time: others' work on the machine counts little, and what data
workers pay for sending batches, which is the same for everybody, does not count at all.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import simplejpeg
import torch

from benchmarks.frame import Found, Run, Target, Turn, row
from benchmarks.photographs import write_shard
from dataset_tools.buckets import cover
from dataset_tools.data_config import DataConfig
from dataset_tools.records import read_samples
from dataset_tools.stream import Stream

BATCH = 8
STORED_PX, TRAINED_PX = 1024, 768
SHAPES = ((4, 3), (3, 4), (1, 1), (3, 2), (2, 3), (1, 1))  # width, height: of photographs, and squares


class Case:
    """A shard of photographs, and what reads it."""

    def __init__(self, folder: Path, small: bool) -> None:
        stored, trained = (64, 48) if small else (STORED_PX, TRAINED_PX)
        self.number = 2 * BATCH if small else 12 * BATCH
        self.config = DataConfig(
            str(folder),
            epochs=1,
            image_size_px=trained,
            multiple_px=8 if small else 32,
            random_ratio=0.0,
            batch_size=BATCH,
            num_workers=0,
            shuffle=0,
        )
        self.buckets = self.config.buckets()
        shapes = [SHAPES[index % len(SHAPES)] for index in range(self.number)]
        sizes = [(round(stored * (w / h) ** 0.5), round(stored * (h / w) ** 0.5)) for w, h in shapes]
        self.shard = write_shard(folder, sizes)
        with self.shard.open("rb") as file:
            samples = list(read_samples(file, "", print))
        self.pictures = [
            (each.image_bytes, *cover((h, w), self.buckets.nearest(h, w)))
            for each, (w, h) in zip(samples, sizes, strict=True)
        ]

    def stream(self) -> None:
        """Ours, from opening the shard to the last batch."""
        assert sum(len(batch["keys"]) for batch in Stream(self.config)) == self.number

    def plain(self, how: str) -> Turn:
        """The same with other people's packages; how: a function of benchmarks.plain_data."""
        from benchmarks import plain_data

        def turn() -> None:
            batches = plain_data.plain_batches(self.shard, self.buckets, BATCH, getattr(plain_data, how))
            assert sum(len(captions) for _, captions in batches) == self.number

        return turn

    def decode(self, whole: bool) -> None:
        """Nothing but libjpeg-turbo, at the smallest of its scales that suffices, or at full size."""
        for data, height, width in self.pictures:
            least = {} if whole else {"min_height": height, "min_width": width}
            simplejpeg.decode_jpeg(data, **least)

    def facts(self) -> dict[str, object]:
        """What was read."""
        num_bytes = sum(len(data) for data, _, _ in self.pictures) // self.number
        return {"stored_px": STORED_PX, "trained_px": TRAINED_PX, "bytes_per_picture": num_bytes}


@contextmanager
def made(run: Run) -> Iterator[Case]:
    """The case, with PyTorch on one thread, like a data worker."""
    threads = torch.get_num_threads()
    os.environ["WDS_VERBOSE_CACHE"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(1)
        try:
            yield Case(Path(folder), run.small)
        finally:
            torch.set_num_threads(threads)


@row(
    "cpu",
    "1024-px JPEGs to 768-px bucketed batches, samples per core-second",
    "webdataset + Pillow + torchvision (uint8 to the end; the fastest of two ways)",
    {"speed": Target("at least", 3.0)},
    seconds=15,
)
def data_plain(run: Run) -> Found:
    """speed_normalised: the same against torchvision's recommended transforms to the end, which are
    numbers of 32 bits with a mean of 0; here the device makes these of uint8."""
    with made(run) as case:
        uint8 = {"on tensors": case.plain("on_tensors"), "on pictures": case.plain("on_pictures")}
        normalised = {"normalised": case.plain("to_numbers")}
        compared = run.compare({"stream": case.stream}, {**uint8, **normalised}, clock=time.process_time)
        found = compared.found("speed", units=case.number)
        found.figures["speed"] = compared.speed_against(uint8)
        found.figures["speed_normalised"] = compared.speed_against(normalised)
        found.facts |= case.facts()
        return found


@row(
    "cpu",
    "1024-px JPEGs to 768-px bucketed batches, share of the pace of a bare decode",
    "libjpeg-turbo at the scale needed (6/8 and the like)",
    {"share_at_scale": Target("at least", 0.7)},
    seconds=15,
)
def data_bare_decode(run: Run) -> Found:
    """share_at_full_size: against decoding all of each picture, which is faster than most smaller scales:
    libjpeg-turbo has vector instructions for 1/1, 1/2, 1/4 and 1/8 only. data_plain's speed over this share
    is what that row would come to if nothing but decoding took time."""
    with made(run) as case:
        peers: dict[str, Turn] = {
            "at_scale": partial(case.decode, whole=False),
            "at_full_size": partial(case.decode, whole=True),
        }
        compared = run.compare({"stream": case.stream}, peers, clock=time.process_time)
        found = compared.found("speed", units=case.number)
        found.figures = {f"share_{name}": compared.speed_against([name]) for name in peers}
        found.facts |= case.facts()
        return found
