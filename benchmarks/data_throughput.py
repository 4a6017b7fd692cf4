"""Samples per second and core that the data stream gives, stage by stage, beside webdataset with Pillow.

python -m benchmarks.data_throughput [--px 512 768 1024] [--pictures 48] [--rounds 3] [--larger 1.5]

Pictures are photographs (of scikit-image, with a little noise, which enlarging them took away) in 4:3, stored
as JPEG of quality 90, --larger times as high as they are trained. Stages: list (find the samples of a shard,
read texts), read (the bytes of pictures), decode, resize (and crop). `stream` is all of it as training gets
it, in one process; `webdataset` reads the same shards, decodes with Pillow, resizes and crops to the same
size, and forms the same batches. They take turns, best of the rounds, in seconds of this process's own time
on one core: so other work on the machine counts little.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

from dataset_tools.data_config import DataConfig
from dataset_tools.decode import fit
from dataset_tools.images import open_image
from dataset_tools.records import read_samples
from dataset_tools.shards import ShardWriter
from dataset_tools.stream import Stream

BATCH = 8
QUALITY = 90


def photographs(number: int, height: int) -> Iterable[bytes]:
    """JPEG files of 4:3 photographs of this height in px."""
    from skimage import data  # of the development packages

    sources = [
        data.astronaut(),
        data.coffee(),
        data.chelsea(),
        data.rocket(),
        data.retina(),
        data.hubble_deep_field(),
    ]
    chance = np.random.default_rng(0)
    for index in range(number):
        picture = Image.fromarray(sources[index % len(sources)])
        side = int(min(picture.size) * chance.uniform(0.6, 0.75))
        left, top = (int(chance.integers(0, length - side)) for length in picture.size)
        box = (left, top, left + side, top + side * 3 // 4)
        pixels = np.asarray(
            picture.resize((height * 4 // 3, height), Image.Resampling.BICUBIC, box), dtype=np.float32
        )
        noisy = pixels + chance.normal(0, 3, pixels.shape)
        file = BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
        yield file.getvalue()


def write(folder: Path, number: int, height: int) -> None:
    facts = {"width_px": height * 4 // 3, "height_px": height}
    with ShardWriter(folder) as writer:
        for index, data in enumerate(photographs(number, height)):
            writer.write(f"{index:09d}", data, "jpg", "a photograph of something", facts)


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
    pictures = [np.array(open_image(sample.image_bytes, at_least)) for sample in samples]

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
            open_image(sample.image_bytes, at_least)

    def resize_all() -> None:
        for pixels in pictures:
            fit(torch.from_numpy(pixels).permute(2, 0, 1), bucket, "center", Random(0))

    def stream_all() -> None:
        assert sum(len(batch["keys"]) for batch in Stream(settings(folder, px))) == number

    return {
        "list": list_all,
        "read": read_all,
        "decode": decode_all,
        "resize": resize_all,
        "stream": stream_all,
        "webdataset": lambda: peer(shard, number, px),
    }


def peer(shard: Path, number: int, px: int) -> None:
    """The same batches by webdataset and Pillow."""
    import webdataset  # of the development packages

    def pixels(image: Image.Image) -> torch.Tensor:
        factor = px / min(image.size)
        size = tuple(max(px, round(length * factor)) for length in image.size)
        left, top = ((length - px) // 2 for length in size)
        square = image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + px, top + px))
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)

    found = (
        webdataset.WebDataset([str(shard)], shardshuffle=False)
        .decode("pilrgb")
        .to_tuple("jpg", "txt", "json")
    )
    batches = found.map_tuple(pixels).batched(BATCH, partial=True)
    assert sum(len(images) for images, _, _ in batches) == number


def measure(folder: Path, number: int, px: int, larger: float, rounds: int) -> dict[str, float]:
    """Samples per second of each stage, best of the rounds, and what follows from them."""
    write(folder, number, int(px * larger))
    actions = stages(folder, number, px)
    best = dict.fromkeys(actions, 0.0)
    for name, action in (item for _ in range(rounds) for item in actions.items()):
        best[name] = max(best[name], per_second(number, action))
    size = (folder / "000000.tar").stat().st_size / number
    rates = {f"{name}_per_s": round(rate, 1) for name, rate in best.items()}
    return rates | {
        "stream_to_webdataset": round(best["stream"] / best["webdataset"], 2),
        "kb": round(size / 1e3),
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
