"""Small settings of every recipe, and pictures for them."""

from typing import Any

import torch
from torch import nn

from dataset_tools.batches import Batch
from train.config import Config, config_from_plain
from train.recipe import Recipe
from train.recipes import make_recipe

STAGE_A = {"levels": 2, "bottleneck_blocks": 1, "c_hidden": 16, "codebook_size": 32}
COMPRESSOR = {
    "c_latent": 4,
    "backbone": {"stages": [["fused", 1, 3, 2, 24, 24, 1]], "c_last": 32},
}  # factor 4
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
IMAGE = {**TEXT, "image_size": 16, "patch_size": 8}
UNET = {
    "c_r": 8,
    "c_cond": 16,
    "c_hidden": [16, 16],
    "nhead": [2, 2],
    "blocks": [[1, 1], [1, 1]],
    "level_config": ["CT", "CTA"],
    "dropout": 0.0,
}
STAGE_B = {**UNET, "block_repeat": [[1, 1], [1, 1]], "c_clip": 16, "c_effnet": 4}
STAGE_C = {**UNET, "c_in": 4, "c_out": 4, "c_clip_text": 16, "c_clip_text_pooled": 16, "c_clip_img": 16}
GDF = {
    "schedule": {"name": "CosineSchedule"},
    "input_scaler": {"name": "VPScaler"},
    "target": {"name": "VTarget"},
    "noise_cond": {"name": "CosineTNoiseCond"},
    "loss_weight": {"name": "AdaptiveLossWeight", "buckets": 20},
}
TEXT_ENCODER = {"config": TEXT, "words": ["red", "circle"], "max_length": 8}
RANDOM_A, RANDOM_COMPRESSOR = ({"config": config, "allow_random": True} for config in (STAGE_A, COMPRESSOR))
DATA = {"shards": "unused", "image_size_px": 32, "aspect_ratios": ["1/1"]}
SAMPLING = {"steps": 2}
RECIPES: dict[str, dict[str, Any]] = {
    "stage_a": {
        "recipe": {"name": "stage_a", "adversarial_weight": 0.5, "revive_every": 2},
        "model": {
            "stage_a": {"config": STAGE_A},
            "discriminator": {"config": {"c_hidden": 16, "depth": 3}},
        },
    },
    "stage_b": {
        "recipe": {"name": "stage_b", "sampling": SAMPLING},
        "model": {
            "stage_a": RANDOM_A,
            "text_encoder": TEXT_ENCODER,
            "stage_b": {"config": STAGE_B},
            "semantic_compressor": {"config": COMPRESSOR},
        },
        "gdf": GDF,
    },
    "stage_b_frozen_compressor": {
        "recipe": {"name": "stage_b", "noise": "white", "compressor_scale": 0.5, "sampling": SAMPLING},
        "model": {
            "stage_a": RANDOM_A,
            "text_encoder": TEXT_ENCODER,
            "stage_b": {"config": STAGE_B},
            "semantic_compressor": {**RANDOM_COMPRESSOR, "train": False},
        },
        "gdf": GDF,
    },
    "stage_c": {
        "recipe": {"name": "stage_c", "image_kept": 0.5, "sampling": SAMPLING},
        "model": {
            "semantic_compressor": RANDOM_COMPRESSOR,
            "text_encoder": TEXT_ENCODER,
            "image_encoder": {"config": IMAGE},
            "stage_c": {"config": STAGE_C},
        },
        "gdf": GDF,
    },
    "previewer": {
        "recipe": {"name": "previewer"},
        "model": {
            "semantic_compressor": RANDOM_COMPRESSOR,
            "previewer": {"config": {"c_in": 4, "c_hidden": 32}},
        },
    },
}
BATCH_NORM_LEARNS = ("stage_a", "stage_b", "previewer")


def make_config(name: str, **changes: Any) -> Config:
    plain = {"name": "test", "run": {"dir": "unused"}, "data": DATA, **RECIPES[name]}
    plain |= {key: {**plain.get(key, {}), **value} for key, value in changes.items()}
    return config_from_plain(plain)


def made(config: Config) -> Recipe:
    torch.manual_seed(0)
    recipe = make_recipe(config)
    recipe.build(torch.device("cpu"))
    for network in recipe.networks().values():
        network.train()
    return recipe


def pictures(count: int) -> Batch:
    """Smooth coloured pictures of 32 x 32 px, each another."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    images = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    captions = [("red circle", "a circle, red", "two circles")[index % 3] for index in range(count)]
    keys = [f"{index:04}" for index in range(count)]
    return Batch(images=(images * 255).byte(), captions=captions, keys=keys, facts=[{}] * count)


def part(batch: Batch, first: int, count: int) -> Batch:
    rows = slice(first, first + count)
    return Batch(**{key: value[rows] for key, value in batch.items()})
