"""What scripts/evaluate.py measures: prompts by the judge, reconstructions, FID and CLIP score."""

import math
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from dataset_tools.judge import read
from dataset_tools.shapes_world import Scene
from inference import Cascade, Picture, Request
from inference.progress import ignore
from inference.sources import fit, source_size
from modules.encoders import ImageEncoder, TextEncoder
from modules.metrics import psnr, ssim

SCORED_TOGETHER = {
    "colour_and_shape": ("colour", "shape"),
    "colour_shape_place_background": ("colour", "shape", "place", "background"),
    "all_five": Scene._fields,
}


def score_prompts(scenes: Sequence[Scene], pictures: Sequence[Picture]) -> dict[str, Any]:
    """Share of pictures in which the judge reads what the prompt named: each attribute, and several together.

    Also lists the pictures in which anything is wrong: prompt, seed, and what was read instead.
    """
    readings = [read(picture.image) for picture in pictures]
    right = [
        {name: reading[name] == getattr(scene, name) for name in Scene._fields}
        for scene, reading in zip(scenes, readings, strict=True)
    ]
    groups = {name: (name,) for name in Scene._fields} | SCORED_TOGETHER
    wrong = [
        {"prompt": p.facts["prompt"], "seed": p.facts["seed"], "read": {k: reading[k] for k in r if not r[k]}}
        for p, reading, r in zip(pictures, readings, right, strict=True)
        if not all(r.values())
    ]
    return {
        "num_pictures": len(pictures),
        "accuracy": {
            group: mean([all(r[n] for n in names) for r in right]) for group, names in groups.items()
        },
        "wrong": wrong,
    }


@torch.inference_mode()
def reconstruct(cascade: Cascade, images: Tensor, requests: Sequence[Request]) -> dict[str, Tensor]:
    """Pictures [B, 3, H, W] through Stage A alone, as the cascade uses it and quantized, and through all."""
    stages, size = cascade.stages, requests[0].size
    latents = {
        "stage_a": stages.encode(images),
        "stage_a_quantized": stages.encode(images, quantized=True),
        "cascade": stages.sample_b(requests, stages.compress(images, stages.grid_b(size)), ignore),
    }
    return {name: stages.decode(value, size).clamp(0, 1).cpu() for name, value in latents.items()}


def score_pairs(images: Sequence[Tensor], originals: Sequence[Tensor]) -> dict[str, float]:
    """Mean PSNR in dB and mean SSIM over pairs of pictures [3, H, W]."""
    pairs = list(zip(images, originals, strict=True))
    return {
        "psnr": mean([psnr(image[None], original[None]).item() for image, original in pairs]),
        "ssim": mean([ssim(image[None], original[None]).item() for image, original in pairs]),
    }


def fid(generated: Sequence[Image.Image], real: Sequence[Image.Image], weights: str) -> float:
    """Fréchet inception distance of two sets of pictures (Heusel et al. 2017), by torchmetrics.

    weights: file of the usual Inception network, pt_inception-2015-12-05. Raises FileNotFoundError, and
    ValueError when the file holds more than tensors or torchmetrics or torch-fidelity is missing.
    """
    if not Path(weights).is_file():
        raise FileNotFoundError(f"fid_weights: the file {weights} does not exist")
    try:
        torch.load(weights, weights_only=True)  # torch-fidelity would run whatever code the file holds
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature_extractor_weights_path=weights)
    except UnpicklingError:
        raise ValueError(f"fid_weights: {weights} is no file of tensors") from None
    except ModuleNotFoundError:
        raise ValueError("fid_weights: FID needs more; pip install torchmetrics torch-fidelity") from None
    for images, are_real in ((generated, False), (real, True)):
        for image in images:
            levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # [3, H, W] uint8
            metric.update(levels[None], real=are_real)
    return metric.compute().item()


@torch.inference_mode()
def clip_score(pictures: Sequence[Picture], model: str) -> float:
    """Mean CLIP score of pictures and their prompts: 100 cos, at least 0 (Hessel et al. 2021).

    model: folder with a whole CLIP model. Raises FileNotFoundError.
    """
    if not Path(model).is_dir():
        raise FileNotFoundError(f"clip_model: the folder {model} does not exist")
    texts, images = TextEncoder(source=model), ImageEncoder(source=model)
    scores = []
    for picture in pictures:
        seen = images(fit(picture.image, source_size(picture.image))[None]).flatten()
        said = texts([picture.facts["prompt"]]).pooled.flatten()
        scores.append(100 * cosine_similarity(seen, said, dim=0).clamp(min=0).item())
    return mean(scores)


def mean(values: Sequence[float]) -> float:
    """The mean, to four digits after the point."""
    return round(math.fsum(values) / len(values), 4)
