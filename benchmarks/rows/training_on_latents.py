"""Training Stage C on what `precompute` made of pictures, beside training on the pictures."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

import gdf
from benchmarks.cascades import BIG_G
from benchmarks.frame import Found, Run, row
from benchmarks.loop import CLIP_NORM, adamw
from benchmarks.networks import released
from benchmarks.trainings import CLIP_L_IMAGE, write_pictures
from dataset_tools.__main__ import main as dataset_tools
from dataset_tools.stream import Stream
from modules import build
from modules.weights import save_network
from train.config import config_from_plain
from train.latents import use_latents
from train.recipes import make_recipe
from train.recipes.stage_c import StageCRecipe
from train.rng import step_rng
from train.session import autocast

MODELS = Path(__file__).parents[2] / "configs" / "model"
NUM_PICTURES = 4
SMALL_TEXT = {"hidden_size": 32, "intermediate_size": 32, "projection_dim": 32, "num_hidden_layers": 1}
SMALL_TEXT |= {"num_attention_heads": 2}
SMALL_IMAGE = {**SMALL_TEXT, "patch_size": 14, "image_size": 28}


@row(
    "cpu",
    "Stage C 1 B, training on precomputed latents, 768 px, batch 1, bf16",
    "the same on pictures: compressor, CLIP bigG and CLIP L at full size",
    seconds=20,
)
def training_on_latents(run: Run) -> Found:
    """Weights and moments are bfloat16 here: with float32 the row would need more memory than many have."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        settings = training(run, folder)
        pictures, made = folder / "pictures", folder / "latents"
        write_pictures(pictures, NUM_PICTURES, 64 if run.small else 1024)
        (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        command = ["precompute", str(pictures), str(made), "--config", str(folder / "config.yaml")]
        if dataset_tools(command):
            raise RuntimeError("precompute failed; its message is above")
        on_pictures = open_recipe(settings, pictures)
        on_latents = open_recipe(settings, made)
        stage_c = on_pictures[0].stage_c.to(torch.bfloat16).train()
        on_latents[0].stage_c = stage_c
        optimizer = adamw(stage_c)
        turns = {
            name: Steps(*on, optimizer) for name, on in (("latents", on_latents), ("pictures", on_pictures))
        }
        comparison = run.compare({"latents": turns["latents"].take}, {"pictures": turns["pictures"].take})
        found = comparison.found("speed", units=1)
        found.facts["data_wait_share"] = {name: each.data_wait_share() for name, each in turns.items()}
        found.facts["bytes_per_sample"] = {each.name: size_of(each) for each in (pictures, made)}
    return found


def training(run: Run, folder: Path) -> dict[str, Any]:
    """Settings of a training of Stage C with random weights; the compressor's are written."""
    text, image = (SMALL_TEXT, SMALL_IMAGE) if run.small else (BIG_G, CLIP_L_IMAGE)
    told = {"c_clip_text": text["hidden_size"], "c_clip_text_pooled": text["projection_dim"]}
    stage_c = released("stage_c", "1b", run.small, **told, c_clip_img=image["projection_dim"])
    compressor = yaml.safe_load(
        (MODELS / "semantic_compressor" / f"{'tiny' if run.small else 'base'}.yaml").read_text(
            encoding="utf-8"
        )
    )["config"]
    weights = folder / "semantic_compressor.safetensors"
    save_network(weights, build("semantic_compressor", compressor), "semantic_compressor", {})
    return {
        "name": "benchmark",
        "run": {"dir": "unused", "precision": "bf16", "device": "cpu"},
        "recipe": {"name": "stage_c"},
        "model": {
            "semantic_compressor": {"weights": str(weights)},
            "text_encoder": {"config": text},
            "image_encoder": {"config": image},
            "stage_c": {"config": stage_c},
        },
        "gdf": gdf.RELEASED_SPEC,
        "data": {
            "shards": str(folder / "pictures"),
            "image_size_px": 64 if run.small else 768,
            "aspect_ratios": ["1/1"],
            "batch_size": 1,
            "num_workers": 0,
        },
    }


def open_recipe(settings: dict[str, Any], shards: Path) -> tuple[StageCRecipe, Stream]:
    """The recipe, its networks built, and the stream of its batches."""
    config = config_from_plain({**settings, "data": {**settings["data"], "shards": str(shards)}})
    recipe, stream = make_recipe(config), Stream(config.data)
    assert isinstance(recipe, StageCRecipe)
    if stream.latents is not None:
        stream.latents = use_latents(recipe, "stage_c", stream.latents)
    recipe.build(torch.device("cpu"))
    return recipe, stream


class Steps:
    """Training steps, each from the shard to the new weights; this process reads the data itself."""

    def __init__(self, recipe: StageCRecipe, stream: Stream, optimizer: torch.optim.Optimizer) -> None:
        self.recipe, self.stream, self.optimizer = recipe, stream, optimizer
        self.batches, self.casts = iter(stream), autocast("bf16", torch.device("cpu"))
        self.number, self.seconds = 0, 0.0

    def take(self) -> None:
        """Take one step."""
        began = time.perf_counter()
        batch = next(self.batches)
        with self.casts():
            rng = step_rng(0, self.number, 0, len(batch["captions"]))
            loss, _ = self.recipe.loss("model", batch, rng)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.recipe.stage_c.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.recipe.after_step(self.number)
        self.number += 1
        self.seconds += time.perf_counter() - began

    def data_wait_share(self) -> float:
        """The share of all steps' time that went by before their batches were there."""
        return self.stream.wait_s / self.seconds


def size_of(folder: Path) -> int:
    """Bytes of a sample in its shards."""
    return sum(path.stat().st_size for path in folder.glob("*.tar")) // NUM_PICTURES
