"""Samples per second and core that the data stream gives, stage by stage, beside webdataset with torchvision.

python -m benchmarks.data_throughput [--px 512 768 1024] [--pictures 48] [--rounds 3] [--larger 1.5]

Pictures are photographs in 4:3, stored as JPEG of quality 90, --larger times as high as they are trained.
Stages: list (find the samples of a shard, read texts), read (the bytes of pictures), decode, resize (and
crop). `stream` is all of it as training gets it, in one process; `webdataset` reads the same shards, decodes
with Pillow, resizes and crops with torchvision to the same size, and forms the same batches. They take turns,
best of the rounds, in seconds of this process's own time on one core: so other work on the machine counts
little. The rows data_plain and data_bare_decode of `python -m benchmarks cpu` compare more, at one size.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.photographs import write_shard
from benchmarks.plain_data import on_tensors, plain_batches
from dataset_tools.data_config import DataConfig
from dataset_tools.decode import fit
from dataset_tools.images import read_pixels
from dataset_tools.records import read_samples
from dataset_tools.stream import Stream

BATCH = 8


def per_second(number: int, action: Callable[[], None]) -> float:
    began = time.process_time()
    action()
    return number / (time.process_time() - began)


def settings(folder: Path, px: int) -> DataConfig:
    """One square bucket, everything once, in this process."""
    return DataConfig(
        str(folder),
        epochs=1,
        image_size_px=px,
        aspect_ratios=["1/1"],
        batch_size=BATCH,
        num_workers=0,
        shuffle=0,
    )


def stages(folder: Path, number: int, px: int) -> dict[str, Callable[[], None]]:
    """What is timed, in this order."""
    shard, bucket = folder / "000000.tar", (px, px)
    at_least = (-(-px * 4 // 3), px)
    with shard.open("rb") as file:
        samples = list(read_samples(file, "s", print))
    pictures = [read_pixels(sample.image_bytes, at_least) for sample in samples]

    def list_all() -> None:
        with shard.open("rb") as file:
            assert len(list(read_samples(file, "s", print, with_pictures=False))) == number

    def read_all() -> None:
        with shard.open("rb") as file:
            for sample in samples:
                file.seek(sample.image_offset)
                file.read(sample.image_num_bytes)

    def decode_all() -> None:
        for sample in samples:
            read_pixels(sample.image_bytes, at_least)

    def resize_all() -> None:
        for pixels in pictures:
            fit(torch.from_numpy(pixels).permute(2, 0, 1), bucket, "center", Random(0))

    def stream_all() -> None:
        assert sum(len(batch["keys"]) for batch in Stream(settings(folder, px))) == number

    def peer_all() -> None:
        batches = plain_batches(shard, settings(folder, px).buckets(), BATCH, on_tensors)
        assert sum(len(captions) for _, captions in batches) == number

    return {
        "list": list_all,
        "read": read_all,
        "decode": decode_all,
        "resize": resize_all,
        "stream": stream_all,
        "webdataset": peer_all,
    }


def measure(folder: Path, number: int, px: int, larger: float, rounds: int) -> dict[str, float]:
    """Samples per second of each stage, best of the rounds, and what follows from them."""
    height = int(px * larger)
    shard = write_shard(folder, [(height * 4 // 3, height)] * number)
    actions = stages(folder, number, px)
    best = dict.fromkeys(actions, 0.0)
    for name, action in (item for _ in range(rounds) for item in actions.items()):
        best[name] = max(best[name], per_second(number, action))
    rates = {f"{name}_per_s": round(rate, 1) for name, rate in best.items()}
    return rates | {
        "stream_to_webdataset": round(best["stream"] / best["webdataset"], 2),
        "kb": round(shard.stat().st_size / number / 1e3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--px", nargs="+", type=int, default=[512, 768, 1024])
    parser.add_argument(
        "--larger", type=float, default=1.5, help="stored pictures are so much larger than trained"
    )
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WDS_VERBOSE_CACHE"] = "0"
    print(
        json.dumps(
            {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        for px in args.px:
            print(
                json.dumps(
                    {"px": px} | measure(Path(folder, str(px)), args.pictures, px, args.larger, args.rounds)
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
