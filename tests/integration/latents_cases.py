"""Pictures of several shapes in shards, the tiny recipes on them, and both precomputed."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from dataset_tools.__main__ import main
from dataset_tools.shards import ShardLimits, ShardWriter
from dataset_tools.stream import Stream
from modules import build
from modules.weights import save_network
from tests.integration.recipe_cases import COMPRESSOR, RECIPES, STAGE_A
from train.config import Config, config_from_plain
from train.latents import use_latents
from train.recipe import Recipe
from train.recipes import make_recipe
from train.rng import step_rng

NUM_PICTURES = 24
SEED = 3
DATA = {
    "image_size_px": 32,
    "multiple_px": 16,
    "aspect_ratios": ["1/1", "1/2"],
    "random_ratio": 0.4,
    "crop": "random",
    "flip": 0.5,
    "alternative_caption": "long",
    "alternative_share": 0.5,
    "batch_size": 4,
    "num_workers": 0,
    "shuffle": 8,
}


def pictures(folder: Path) -> Path:
    """Three shards of 8 smooth pictures between 40 and 70 px, with a caption and a longer one."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder, ShardLimits(max_samples=8)) as writer:
        for number in range(NUM_PICTURES):
            width, height = (int(side) for side in rng.integers(40, 70, 2))
            coarse = Image.fromarray(rng.uniform(0, 255, (5, 5, 3)).astype(np.uint8))
            picture = coarse.resize((width, height))
            file = folder / "picture.png"
            picture.save(file)
            facts = {"width_px": width, "height_px": height, "long": f"a red circle, {number} times"}
            writer.write(f"{number:04}", file.read_bytes(), "png", "" if number == 5 else "red", facts)
            file.unlink()
    return folder


def weights(folder: Path) -> dict[str, str]:
    """The files of a compressor and a Stage A whose outputs depend on their inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, config in (("semantic_compressor", COMPRESSOR), ("stage_a", STAGE_A)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            network = build(name, config)
            for parameter in network.parameters():
                parameter.data.add_(0.1 * torch.randn(parameter.shape))
        save_network(folder / f"{name}.safetensors", network, name, {})
    return {path.stem: str(path) for path in folder.glob("*.safetensors")}


def plain(name: str, shards: Path, files: Mapping[str, str], **data: Any) -> dict[str, Any]:
    """A recipe's settings with the files as its frozen networks."""
    made = deepcopy(RECIPES[name])
    for network in ("semantic_compressor", "stage_a"):
        if network in made["model"]:
            made["model"][network] = {"weights": files[network]}
    if name.startswith("stage_b"):
        made["recipe"] |= {"random_scale": [1.0, 1.0], "noise": "pyramid"}
        made["model"]["semantic_compressor"]["train"] = False
    run = {"dir": "unused", "seed": SEED, "sample_every": 1}
    return {"name": "test", "run": run, **made, "data": {**DATA, "shards": str(shards), **data}}


def precompute(settings: dict[str, Any], out: Path, *options: str) -> int:
    """Run the command with these settings, as a file; returns its exit status."""
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings))
    return main(["precompute", settings["data"]["shards"], str(out), "--config", str(file), *options])


def opened(config: Config) -> tuple[Recipe, Stream]:
    """The recipe, built, and its stream, as a session makes them."""
    stream, recipe = Stream(config.data, seed=config.run.seed), make_recipe(config)
    if stream.latents is not None:
        stream.latents = use_latents(recipe, config.recipe["name"], stream.latents)
    torch.manual_seed(0)
    recipe.build(torch.device("cpu"))
    for network in recipe.networks().values():
        network.train()
    return recipe, stream


def losses(settings: dict[str, Any], steps: int) -> tuple[list[float], list[list[str]]]:
    """The loss of each step, and the keys of its batch, of a short training."""
    config = config_from_plain(settings)
    recipe, stream = opened(config)
    learning = [p for p in recipe.trainable()["model"].parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-2)
    found, keys = [], []
    for step, batch in zip(range(steps), stream, strict=False):
        torch.manual_seed(step)
        count = len(batch["captions"])
        loss, _ = recipe.loss("model", batch, step_rng(SEED, step, 0, count))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recipe.after_step(step)
        found.append(loss.item())
        keys.append(batch["keys"])
    return found, keys


class Made:
    """Shards of pictures, the networks' files, and a folder for what is made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = weights(folder / "weights")
        self.shards = pictures(folder / "pictures")

    def settings(self, name: str, shards: Path | None = None, **data: Any) -> dict[str, Any]:
        return plain(name, shards or self.shards, self.files, **data)

    def latents(self, name: str, *options: str) -> Path:
        """The folder of a recipe's latents; made at the first call."""
        out = self.folder / "_".join([name, *options])
        if not (out / "index.json").exists():
            assert precompute(self.settings(name), out, "--versions", "2", *options) == 0
        return out
