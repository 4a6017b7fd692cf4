"""Tiny runs of the real recipes that are killed again and again: their data, frozen weights and settings."""

from pathlib import Path
from typing import Any

import torch

import modules
from modules.weights import save_network
from tests.faults.material import write_shards
from tests.integration.recipe_cases import (
    GDF,
    IMAGE,
    RANDOM_COMPRESSOR,
    RECIPES,
    SAMPLING,
    STAGE_B,
    STAGE_C,
    TEXT_ENCODER,
)

PER_SHARD, SIZE_PX = (10, 10), 32
STYLES: dict[str, dict[str, int]] = {
    # Steps make up most of the time; saves, sheets and reports fall on different steps.
    "even": {"num_steps": 8, "save_every": 3, "sample_every": 5, "log_every": 4},
    # Saves, renames, sheets and the first step do.
    "busy": {"num_steps": 4, "save_every": 1, "sample_every": 1, "log_every": 1},
}
STAGE_C_HELPERS = {
    "semantic_compressor": RANDOM_COMPRESSOR,
    "text_encoder": TEXT_ENCODER,
    "image_encoder": {"config": IMAGE},
}
CONTROLNET = {
    "c_in": 1,
    "c_proj": 16,
    "proj_blocks": [0, 3],
    "backbone": {"stages": [["fused", 1, 3, 1, 8, 8, 1], ["fused", 2, 3, 2, 8, 16, 1]], "c_last": 16},
    "stochastic_depth": 0.5,
}
RESAMPLER = {"c_image": 16, "image_proj": {"name": "resampler", "num_tokens": 3, "depth": 1, "nhead": 2}}
TEACHER = {"steps": 4, "guidance": 3.0, "shift": 2.0, "sampler": "ddim", "rescale": 0.7}
LCM_SAMPLING = {"steps": 2, "guidance": 1.0, "shift": 2.0, "sampler": "lcm", "rescale": 0.0}


def write_material(folder: Path) -> Path:
    """Shards of pictures, and Stage B and Stage C with no layer at zero, as the last of fresh networks is."""
    write_shards(folder / "shards", PER_SHARD, [(SIZE_PX, SIZE_PX)])
    torch.manual_seed(3)
    for name, config in (("stage_b", STAGE_B), ("stage_c", STAGE_C)):
        network = modules.build(name, config)
        for parameter in network.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
        save_network(folder / f"{name}.safetensors", network, name, {})
    return folder


def settings(
    recipe: str, run_dir: Path, material: Path, *, mode: str = "single", size: int = 1, **run: Any
) -> dict[str, Any]:
    """The settings of a run as plain data. run: entries of that group."""
    return {
        "name": recipe,
        "run": {
            "dir": str(run_dir),
            "num_samples": 2,
            "device": "cpu",
            "num_threads": 1,
            "ema": {"start": 2, "interval": 2, "decay": 0.9},
            **run,
        },
        "data": {
            "shards": str(material / "shards"),
            "image_size_px": SIZE_PX,
            "multiple_px": SIZE_PX,
            "aspect_ratios": ["1/1"],
            "batch_size": 4 // size,
            "num_workers": 0,
            "split": "samples",
            **({"control": {"name": "canny", "low": 20, "high": 40}} if recipe == "controlnet" else {}),
        },
        "optim": {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 2},
        "parallel": {"mode": mode},
        **_recipe(recipe, material),
    }


def _recipe(name: str, material: Path) -> dict[str, Any]:
    """The groups recipe, model and gdf; all that has a turn now and then has one within a few steps."""
    stage_c = {"weights": str(material / "stage_c.safetensors")}
    on_stage_c = {"name": "stage_c", "caption_dropout": 0.3, "image_kept": 0.5, "sampling": SAMPLING}
    if name == "stage_a":
        case = RECIPES["stage_a"]
        return case | {"recipe": case["recipe"] | {"adversarial_start_step": 2, "revive_every": 4}}
    if name == "lora":
        regularisation = {"shards": str(material / "shards"), "weight": 0.5}
        own = {"layers": {"*.attn.*": 2, "*channelwise*": 2}, "dropout": 0.1, "dora": True}
        own |= {"tokens": {"[mine]": "circle", "red": None}, "regularisation": regularisation}
        model = {**STAGE_C_HELPERS, "stage_c": stage_c}
        return {"recipe": {"name": "lora", "base": on_stage_c, **own}, "model": model, "gdf": GDF}
    if name == "controlnet":
        model = {key: STAGE_C_HELPERS[key] for key in ("semantic_compressor", "text_encoder")}
        model |= {"stage_c": stage_c, "controlnet": {"config": CONTROLNET}}
        base = {"name": "stage_c", "sampling": SAMPLING}
        own = {"name": "controlnet", "base": base, "control_dropout": 0.3}
        return {"recipe": own, "model": model, "gdf": GDF}
    if name == "ip_adapter":
        model = {**STAGE_C_HELPERS, "stage_c": stage_c, "ip_adapter": {"config": RESAMPLER}}
        base = on_stage_c | {"image_kept": 0.0}
        return {"recipe": {"name": name, "base": base, "image_dropout": 0.3}, "model": model, "gdf": GDF}
    if name in ("lcm", "lcm_stage_b"):
        case = RECIPES["stage_b_frozen_compressor" if name == "lcm_stage_b" else "stage_c"]
        base = case["recipe"] | {"sampling": LCM_SAMPLING}
        network = {"weights": str(material / f"{base['name']}.safetensors")}
        own = {"name": "lcm", "base": base, "teacher": TEACHER, "num_times": 8}
        return {"recipe": own, "model": case["model"] | {base["name"]: network}, "gdf": GDF}
    return RECIPES[name]
