"""A few steps of a training as `python -m train` does it, on made pictures and random weights."""

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.cascades import BIG_G
from dataset_tools.shards import ShardWriter
from train.config import Config, config_from_plain
from train.hooks import StepDone
from train.interrupts import stop_requests
from train.loop import train
from train.parallel.world import join
from train.recipes import make_recipe
from train.session import make_session

ROOT = Path(__file__).parents[1]
CLIP_L_IMAGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "patch_size": 14}
CLIP_L_IMAGE |= {"num_attention_heads": 16, "projection_dim": 768, "image_size": 224}
ENCODERS = {"text_encoder": BIG_G, "image_encoder": CLIP_L_IMAGE}  # in the place of the released ones' files
JPEG_QUALITY = 90


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of a training as its command composes them. Raises ValueError with what it says."""
    command = [sys.executable, "-m", "train", "--cfg", "job", *overrides]
    around = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=around)
    if done.returncode:
        raise ValueError(done.stderr.strip().removeprefix("error: "))
    settings: dict[str, Any] = yaml.safe_load(done.stdout)
    return settings


def without_files(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings with random weights, where files of weights or names of the hub stand."""
    model: dict[str, Any] = {}
    for name, entry in settings["model"].items():
        if "weights" in entry:
            entry = {**entry, "weights": None, "allow_random": True}
        if entry.get("source"):
            entry = {**entry, "source": None, "config": ENCODERS[name]}
        model[name] = entry
    return {**settings, "model": model}


def write_pictures(folder: Path, number: int, side_px: int) -> None:
    """Shards of square pictures with captions; blurred noise, which compresses about as photographs do."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder) as writer:
        for index in range(number):
            coarse = Image.fromarray(rng.uniform(0, 255, (side_px // 16, side_px // 16, 3)).astype(np.uint8))
            file = BytesIO()
            coarse.resize((side_px, side_px)).save(file, "JPEG", quality=JPEG_QUALITY)
            facts = {"width_px": side_px, "height_px": side_px}
            caption = f"a picture with the number {index} that somebody has described at some length"
            writer.write(f"{index:06}", file.getvalue(), "jpg", caption, facts)


def take_steps(settings: Mapping[str, Any], folder: Path, device: str, steps: int) -> tuple[Config, float]:
    """Train for so many steps in `folder`; nothing is saved or drawn. Returns the settings as checked, and
    the median seconds of a step after the first."""
    run = {**settings["run"], "dir": str(folder), "num_steps": steps, "device": device, "sample_every": 0}
    config = config_from_plain({**settings, "run": run})
    seconds: list[float] = []

    def note(done: StepDone) -> None:
        seconds.append(done.seconds)

    with stop_requests() as stop:
        session = make_session(config, make_recipe(config), join(device, config.parallel))
        session.hooks = [note]
        train(session, stop)
    return config, statistics.median(seconds[1:])
