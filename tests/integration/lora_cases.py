"""Small runs of the LoRA recipe: bases with weights, pictures with captions, and settings."""

import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import modules
from modules.weights import read_tensors, save_network
from tests.integration.recipe_cases import (
    GDF,
    IMAGE,
    RANDOM_A,
    RANDOM_COMPRESSOR,
    SAMPLING,
    STAGE_B,
    STAGE_C,
    TEXT_ENCODER,
)
from train.config import config_from_plain
from train.loop import run
from train.recipes import make_recipe
from train.recipes.lora import LoRARecipe

STEPS, HALF = 4, 2
LORA = {"name": "lora", "layers": {"*.attn.*": 2, "*channelwise*": 2}, "dropout": 0.1}
TOKENS = {"[mine]": "circle", "red": None}
BASES: dict[str, dict[str, Any]] = {
    "stage_c": {
        "model": {
            "semantic_compressor": RANDOM_COMPRESSOR,
            "text_encoder": TEXT_ENCODER,
            "image_encoder": {"config": IMAGE},
        },
        "base": {"image_kept": 0.5},
    },
    "stage_b": {
        "model": {
            "stage_a": RANDOM_A,
            "text_encoder": TEXT_ENCODER,
            "semantic_compressor": {**RANDOM_COMPRESSOR, "train": False},
        },
        "base": {},
    },
}
Settings = Callable[..., dict[str, Any]]


def lora_settings(folder: Path, shards: Path) -> Settings:
    """A function that makes the settings of a run in `folder`.

    Its `recipe` changes the recipe's settings, `model` those of networks by name, other keywords change
    those of their groups.
    Writes what all runs read into `folder` first: the bases' weights and the pictures of `shards`.
    """
    write_bases(folder)
    write_captioned(shards, folder / "captioned")

    def make(
        dir_name: str, base: str = "stage_c", recipe: dict[str, Any] | None = None, **changes: Any
    ) -> dict[str, Any]:
        case = BASES[base]
        run_settings = {
            "dir": str(folder / dir_name),
            "num_steps": STEPS,
            "log_every": 1,
            "save_every": HALF,
            "sample_every": HALF,
            "num_samples": 2,
            "device": "cpu",
            "ema": {"decay": 0.5},
        }
        data = {
            "shards": str(folder / "captioned"),
            "image_size_px": 32,
            "multiple_px": 32,
            "aspect_ratios": ["1/1"],
            "batch_size": 4,
            "num_workers": 0,
            "split": "samples",
        }
        model = {**case["model"], base: {"weights": str(folder / f"{base}.safetensors")}}
        for name, entry in changes.pop("model", {}).items():
            model[name] = {**model[name], **entry}
        return {
            "name": "test",
            "run": {**run_settings, **changes.pop("run", {})},
            "data": {**data, **changes.pop("data", {})},
            "recipe": {
                **LORA,
                "base": {"name": base, "sampling": SAMPLING, **case["base"]},
                **(recipe or {}),
            },
            "model": model,
            "gdf": GDF,
            "optim": {"lr": 1e-2},
            **changes,
        }

    return make


def write_bases(folder: Path) -> None:
    """The bases' weights: no layer is zero, as the last of fresh networks is."""
    torch.manual_seed(3)
    for name, config in (("stage_b", STAGE_B), ("stage_c", STAGE_C)):
        network = modules.build(name, config)
        for parameter in network.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
        save_network(folder / f"{name}.safetensors", network, name, {})


def write_captioned(shards: Path, out: Path) -> None:
    """The pictures of `shards` with captions that the tokens occur in."""
    out.mkdir()
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as source, tarfile.open(out / path.name, "w") as target:
            for member in source:
                data = source.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith(".txt"):
                    data = f"a red [mine] {data.decode()[-1]}".encode()
                    member.size = len(data)
                target.addfile(member, BytesIO(data))


def trained(plain: dict[str, Any]) -> LoRARecipe:
    """The recipe after its run."""
    config = config_from_plain(plain)
    recipe = make_recipe(config)
    run(config, recipe)
    assert isinstance(recipe, LoRARecipe)
    return recipe


def weights(folder: Path) -> dict[str, dict[str, Tensor]]:
    """All tensors of all files that a run has written."""
    return {path.name: read_tensors(path) for path in (folder / "weights").iterdir()}
