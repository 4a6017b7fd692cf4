"""Training Stage C on pictures and on what `precompute` made of them: speed, shares of time, bytes on disk.

python -m benchmarks.precomputed [--px 64] [--compressor demo] [--encoders demo] [--stage-c demo] [--rounds 3]

The trainings take turns in one process. Seconds are this process's own on one core, so that other work on the
machine counts little. Weights are random; the pictures, JPEGs of 512 px, are decoded by the process itself,
so every share is seen.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import yaml
from PIL import Image

from dataset_tools.__main__ import main as dataset_tools
from dataset_tools.shards import ShardWriter
from dataset_tools.stream import Stream
from modules import build
from modules.weights import save_network
from train.config import config_from_plain
from train.latents import use_latents
from train.recipes import make_recipe
from train.recipes.stage_c import StageCRecipe
from train.rng import step_rng

MODELS = Path(__file__).parents[1] / "configs" / "model"
PICTURE_PX, QUALITY = 512, 90
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_L_IMAGE = {**CLIP_L, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
CLIP_L_IMAGE |= {"num_attention_heads": 16, "patch_size": 14}
GDF = {"schedule": {"name": "CosineSchedule"}, "input_scaler": {"name": "VPScaler"}}
GDF |= {"target": {"name": "VTarget"}, "noise_cond": {"name": "CosineTNoiseCond"}}
GDF |= {"loss_weight": {"name": "ConstantLossWeight"}}


def model(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((MODELS / group / f"{name}.yaml").read_text())


def settings(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A training of Stage C on pictures; the compressor's weights are made."""
    if options.encoders == "clip_l":
        text: dict[str, Any] = {"config": CLIP_L | {"projection_dim": 768}}
        image: dict[str, Any] = {"config": CLIP_L_IMAGE | {"projection_dim": 768, "image_size": 224}}
    else:
        text, image = model("text_encoder", "demo"), model("image_encoder", "demo")
    stage_c = model("stage_c", options.stage_c)
    stage_c["config"] |= {
        "c_clip_text": text["config"]["hidden_size"],
        "c_clip_text_pooled": text["config"]["projection_dim"],
        "c_clip_img": image["config"]["projection_dim"],
    }
    compressor = model("semantic_compressor", options.compressor)["config"]
    save_network(
        folder / "c.safetensors", build("semantic_compressor", compressor), "semantic_compressor", {}
    )
    return {
        "name": "benchmark",
        "run": {"dir": "unused"},
        "recipe": {"name": "stage_c"},
        "model": {
            "semantic_compressor": {"weights": str(folder / "c.safetensors")},
            "text_encoder": text,
            "image_encoder": image,
            "stage_c": stage_c,
        },
        "gdf": GDF,
        "data": {
            "shards": str(folder / "pictures"),
            "image_size_px": options.px,
            "aspect_ratios": ["1/1"],
            "batch_size": options.batch,
            "num_workers": 0,
        },
    }


def make_pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    with ShardWriter(folder / "pictures") as writer:
        for number in range(count):
            coarse = Image.fromarray(rng.uniform(0, 255, (32, 32, 3)).astype(np.uint8))
            coarse.resize((PICTURE_PX, PICTURE_PX)).save(folder / "p.jpg", quality=QUALITY)
            facts = {"width_px": PICTURE_PX, "height_px": PICTURE_PX}
            caption = f"a picture with the number {number} that somebody has described at some length"
            writer.write(f"{number:06}", (folder / "p.jpg").read_bytes(), "jpg", caption, facts)


def training(plain: dict[str, Any], shards: Path) -> Iterator[dict[str, float]]:
    """Steps for ever: the seconds of each, by what they were spent on."""
    config = config_from_plain({**plain, "data": {**plain["data"], "shards": str(shards)}})
    recipe, stream = make_recipe(config), Stream(config.data)
    assert isinstance(recipe, StageCRecipe)
    if stream.latents is not None:
        stream.latents = use_latents(recipe, "stage_c", stream.latents)
    recipe.build(torch.device("cpu"))
    optimizer = torch.optim.AdamW(recipe.stage_c.train().parameters(), lr=1e-4)
    batches, step = iter(stream), 0
    while True:
        times = [time.process_time()]
        batch = next(batches)
        times.append(time.process_time())
        rng = step_rng(0, step, 0, len(batch["captions"]))
        latents, conditions, noise = recipe.example(batch, rng)
        times.append(time.process_time())
        loss, _ = recipe.objective.loss(recipe.stage_c, latents, conditions, rng, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recipe.after_step(step)
        times.append(time.process_time())
        step += 1
        spent = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
        yield dict(zip(("reading", "encoding", "learning"), spent, strict=True))


def measured(spent: list[dict[str, float]], batch: int) -> dict[str, float]:
    """Medians over the steps."""
    each = {name: float(np.median([step[name] for step in spent])) for name in spent[0]}
    whole = sum(each.values())
    shares = {f"{name}_share": round(seconds / whole, 3) for name, seconds in each.items()}
    return {"samples_per_second": round(batch / whole, 2), **shares}


def bytes_each(folder: Path, count: int) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.tar")) // count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--px", type=int, default=64, help="side of the pictures (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--compressor", default="demo", choices=["demo", "base"])
    parser.add_argument("--encoders", default="demo", choices=["demo", "clip_l"])
    parser.add_argument("--stage-c", default="demo", choices=["demo", "1b"])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each training")
    parser.add_argument("--steps", type=int, default=8, help="steps per turn")
    parser.add_argument("--pictures", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "made", options.pictures)
        (folder / "made" / "pictures").rename(folder / "pictures")
        plain = settings(options, folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(plain))
        for out, more in (("latents", []), ("compressed", ["--compress"])):
            paths = [str(folder / "pictures"), str(folder / out), "--config", str(folder / "config.yaml")]
            assert dataset_tools(["precompute", *paths, *more]) == 0
        places = {kind: folder / kind for kind in ("pictures", "latents", "compressed")}
        trainings = {kind: training(plain, place) for kind, place in places.items()}
        spent: dict[str, list[dict[str, float]]] = {kind: [] for kind in trainings}
        for number in range(options.rounds + 1):
            for kind, steps in trainings.items():
                turn = [next(steps) for _ in range(options.steps)]
                spent[kind] += turn if number else []  # the first warms up
        result: dict[str, Any] = {kind: measured(steps, options.batch) for kind, steps in spent.items()}
        for kind, place in places.items():
            result[kind]["bytes_per_sample"] = bytes_each(place, options.pictures)
    speed = {kind: found["samples_per_second"] for kind, found in result.items()}
    result["times_faster"] = {kind: round(speed[kind] / speed["pictures"], 2) for kind in speed}
    result |= {"options": vars(options), "torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps(result | {"machine": platform.machine()}, indent=1))


if __name__ == "__main__":
    main()
