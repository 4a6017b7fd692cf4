"""From a prompt to a picture: our whole pipeline beside diffusers', with the same weights and steps."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cascades import (
    Size,
    TheirPipelines,
    full_size,
    our_cascade,
    our_pictures,
    small_models,
    tiny,
    write,
)
from benchmarks.frame import Found, Run, Target, Turn, row
from benchmarks.sdxl import SDXL

PIPELINES = "diffusers' prior and decoder pipelines, same weights, same steps"
TARGETS = {
    "speed_documented": Target("at least", 2.5),
    "speed_compiled": Target("at least", 1.3),
    "speed_sdxl": Target("at least", 3.0),
}
SAME_PSNR_DB = 30.0  # pictures of the same networks; what they differ in is told in `same_picture`


@row(
    "cpu",
    "text to picture, small models (quarter width, 512 px, 20 + 10 steps), bf16",
    PIPELINES,
    {"ratio": Target("at most", 0.6)},
    seconds=30,
)
def text_to_picture_small(run: Run) -> Found:
    with tempfile.TemporaryDirectory() as name:
        size = tiny() if run.small else small_models()
        write(Path(name), size, run.device, torch.float32)
        psnr = same_picture(Path(name), size, run.device)
        ours, peers = variants(run, Path(name), size, 1)
        found = run.compare(ours, peers, shorten=True).found(units=1)
    found.facts |= {"psnr_of_both_db": psnr, "px": size.px, "steps": size.steps}
    return found


@row(
    "gpu",
    "text to picture, 1024², 3.6 B + 1.5 B, 20 + 10 steps, batch 1, bf16",
    PIPELINES + "; SDXL, 30 steps, random weights",
    TARGETS,
)
def text_to_picture_batch_1(run: Run) -> Found:
    return beside_everything(run, 1)


@row(
    "gpu",
    "text to picture, 1024², 3.6 B + 1.5 B, 20 + 10 steps, batch 8, bf16",
    PIPELINES + "; SDXL, 30 steps, random weights",
    TARGETS,
)
def text_to_picture_batch_8(run: Run) -> Found:
    return beside_everything(run, 2 if run.small else 8)


def beside_everything(run: Run, batch: int) -> Found:
    """Ours beside diffusers' pipelines, as documented and compiled, and beside SDXL."""
    with tempfile.TemporaryDirectory() as name:
        size = tiny() if run.small else full_size()
        write(Path(name), size, run.device, torch.bfloat16)
        psnr = same_picture(Path(name), size, run.device)
        ours, peers = variants(run, Path(name), size, batch, graphs=True)
        sdxl = SDXL(run.device, run.small)
        peers |= {"SDXL": sdxl.pictures(batch, False), "SDXL, compiled": sdxl.pictures(batch, True)}
        comparison = run.compare(ours, peers)
    found = comparison.found("speed", units=batch)
    against = {"documented": ["as documented"], "compiled": ["compiled"], "sdxl": ["SDXL", "SDXL, compiled"]}
    found.figures = {
        f"speed_{name}": comparison.speed_against(peers)
        for name, peers in against.items()
        if set(peers) & comparison.peers.keys()
    }
    found.facts |= {"psnr_of_both_db": psnr, "px": size.px, "steps": size.steps, "sdxl_steps": sdxl.steps}
    return found


def variants(
    run: Run, folder: Path, size: Size, batch: int, graphs: bool = False
) -> tuple[dict[str, Turn], dict[str, Turn]]:
    """Our pipeline and theirs, in bfloat16, each also compiled. graphs: also as CUDA graphs."""
    ways: dict[str, Any] = {"eager": False, "compiled": True}
    if graphs:
        ways["compiled, graphs"] = "graphs"
    theirs = TheirPipelines.load(folder, run.device, torch.bfloat16)
    ours: dict[str, Turn] = {
        name: our_pictures(our_cascade(folder, run.device, "bf16", compile=way), size, batch)
        for name, way in ways.items()
    }
    peers: dict[str, Turn] = {
        "as documented": theirs.pictures(size, batch),
        "compiled": theirs.compiled(mode="reduce-overhead" if graphs else None).pictures(size, batch),
    }
    return ours, peers


def same_picture(folder: Path, size: Size, place: torch.device) -> float:
    """PSNR in dB of both pipelines' pictures of one prompt and seed, in float32; inf where they are equal.

    Not quite alike: our last step gives the estimate of the clean latents, theirs has noise of 1 % left. In
    bfloat16 they cannot be compared: there theirs embeds the time with three digits. RuntimeError where the
    two do not draw the same.
    """
    ours = our_pictures(our_cascade(folder, place, "fp32"), size, 1)()[0]
    theirs = TheirPipelines.load(folder, place, torch.float32).pictures(size, 1)()[0]
    one, other = (np.asarray(image, dtype=np.float64) for image in (ours, theirs))
    error = float(np.square(one - other).mean())
    psnr = 10 * np.log10(255**2 / error) if error else float("inf")
    if psnr < SAME_PSNR_DB:
        raise RuntimeError(f"ours and diffusers' pictures of the same weights differ: PSNR {psnr:.1f} dB")
    return float(psnr)
