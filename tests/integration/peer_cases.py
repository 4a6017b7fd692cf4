"""A cascade of small networks that diffusers can sample too, and what it takes to compare the two."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel
from torch import Tensor

import gdf
from gdf.samplers import DDPMSampler, Step
from modules import build
from modules.encoders import ImageEncoder, TextEncoder
from modules.weights import save_network

# Its pipelines look for Stage A's class where it was until version 0.35.
diffusers.PaellaVQModel = PaellaVQModel
diffusers.pipelines.wuerstchen = diffusers.pipelines.deprecated.wuerstchen

RELATIVE = 1e-4  # what outputs may differ by, relative to the largest
WORDS = ["a", "red", "blue", "circle", "square"]
CLIP = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 12,
}
COMPRESSION = 8 / 0.75
UNET = {"c_r": 8, "c_cond": 16, "blocks": [[1, 2], [2, 1]], "dropout": 0.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "stage_a": {"bottleneck_blocks": 1, "c_hidden": 16, "codebook_size": 32, "scale_factor": 0.02},
    "stage_b": {
        **UNET,
        "c_hidden": [16, 24],
        "nhead": [-1, 3],
        "block_repeat": [[1, 2], [3, 1]],
        "level_config": ["CT", "CTA"],
        "c_clip": 12,
        "c_clip_seq": 2,
    },
    "stage_c": {
        **UNET,
        "c_hidden": [16, 24],
        "nhead": [2, 3],
        "c_clip_text": 16,
        "c_clip_text_pooled": 12,
        "c_clip_img": 12,
    },
    "semantic_compressor": {
        "backbone": {
            "stages": [["fused", 1, 3, 1, 8, 8, 1], ["fused", 2, 3, 2, 8, 8, 1], ["fused", 2, 3, 2, 8, 8, 1]],
            "c_last": 8,
        }
    },
    "previewer": {"c_hidden": 16},
}


def random_network(name: str, seed: int = 0, **changes: Any) -> Any:
    """A network every parameter of which has a value that matters, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(name, {**CONFIGS[name], **changes})
        for parameter in network.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
        for key, buffer in network.named_buffers():
            if buffer.is_floating_point() and "var" not in key:
                buffer.add_(0.1 * torch.randn(buffer.shape))
    return network.eval()


def diffusion_spec(steps: int) -> dict[str, Any]:
    """The released diffusion, with the noise condition of diffusers' pipelines sampled in so many steps.

    They tell the network the time itself, the published code the time at which the clamped schedule has the
    present log-SNR: 0.9936 instead of 1 at the start. A table of the steps' times gives theirs.
    """
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    variances = gdf.build(gdf.RELEASED_SPEC).schedule(times).sigmoid()
    table = {"x": times.tolist(), "y": variances.tolist()}
    return {**gdf.RELEASED_SPEC, "noise_cond": {"name": "PiecewiseLinearNoiseCond", **table}}


@dataclass
class TheirSampler(DDPMSampler):
    """DDPM whose last step goes as any other but for the fresh noise, which is left out.

    Ours replaces that noise by as much of the predicted one, and the picture is the last estimate of x0.
    """

    def step(self, step: Step) -> Tensor:
        if step.is_last:
            drawn = step.randn()  # they draw it all the same
            step = step._replace(is_last=False, randn=lambda: torch.zeros_like(drawn))
        return super().step(step)


def save_cascade(folder: Path, steps: Mapping[str, int]) -> dict[str, Any]:
    """Write a folder of runs (stage_a, stage_b, stage_c, previewer) and return all networks and encoders."""
    networks = {name: random_network(name) for name in CONFIGS}
    text_encoder = TextEncoder(config=CLIP, words=WORDS, max_length=12)
    image_encoder = ImageEncoder(config={**CLIP, "image_size": 32, "patch_size": 16})
    facts: dict[str, dict[str, Any]] = {
        "stage_b": {"compressor_scale": 0.75, "gdf": diffusion_spec(steps["stage_b"])},
        "stage_c": {"compression": COMPRESSION, "gdf": diffusion_spec(steps["stage_c"]), "image_size_px": 32},
    }
    for name, network in networks.items():
        run = folder / ("stage_b" if name == "semantic_compressor" else name)
        (run / "weights").mkdir(parents=True, exist_ok=True)
        told = {"text_encoder": "text_encoder", **facts[name]} if name in facts else {}
        save_network(run / "weights" / f"{name}.safetensors", network, name, told)
        if name in facts:
            text_encoder.save(run / "text_encoder")
    image_encoder.save(folder / "stage_c" / "image_encoder")
    return {**networks, "text_encoder": text_encoder, "image_encoder": image_encoder}


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def same_state(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are bit-identical."""
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[key]) and tensor.dtype == other[key].dtype for key, tensor in one.items()
    )
