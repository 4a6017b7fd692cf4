"""Peak memory of trainings and of drawing, each in a fresh process, as its commands do it."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.cascades import full_size, our_cascade, our_pictures, tiny, write
from benchmarks.frame import Found, Run, Target, row
from benchmarks.machine import most_held_bytes
from benchmarks.trainings import composed, take_steps, without_files, write_pictures
from train.budget.measures import Chooser
from train.budget.memory import Needs
from train.budget.paper import Paper

T = TypeVar("T")
GB = 1e9
STEPS = 4
PUBLISHED = "the published code: "  # what its authors and users report of it
ONE_GPU = [
    "parallel=single",
    "parallel.activation_checkpointing=true",
    "run.num_accum=1",
    "run.sample_every=0",
]
LIGHT = [*ONE_GPU, "run.ema.enabled=false", "model.text_encoder.offload=true"]
BYTES = [
    "optim=adamw8bit",
    "optim.weights=bf16_stochastic",
    "optim.fused_backward=true",
    "run.clip_norm=null",
]


def at_most(gigabytes: float) -> dict[str, Target]:
    return {"peak_gb": Target("at most", gigabytes, "GB")}


def training_at_most(gigabytes: float) -> dict[str, Target]:
    """The same, and what `scripts.estimate` counts beforehand is not far from it."""
    return at_most(gigabytes) | {"estimate_error": Target("at most", 0.1, "of the measured")}


@row(
    "gpu",
    "peak memory: fine-tuning Stage C 3.6 B, 768 px, batch 1",
    PUBLISHED + "75 GB",
    training_at_most(24),
)
def memory_fine_tune(run: Run) -> Found:
    return training_memory(run, "stage_c_3_6b", "stage_c", 1, [*LIGHT, *BYTES])


@row("gpu", "peak memory: LoRA on Stage C 3.6 B, 768 px, batch 4", PUBLISHED + "45 GB", training_at_most(12))
def memory_lora(run: Run) -> Found:
    return training_memory(run, "lora_stage_c_3_6b", "lora", 4, LIGHT)


@row("gpu", "peak memory: LoRA on Stage C 3.6 B in NF4, 768 px, batch 1", "", training_at_most(6))
def memory_lora_nf4(run: Run) -> Found:
    return training_memory(run, "lora_stage_c_3_6b", "lora", 1, [*LIGHT, "model.stage_c.frozen_weights=nf4"])


@row(
    "gpu",
    "peak memory: ControlNet on Stage C 3.6 B, 768 px, batch 8",
    PUBLISHED + "does not fit 80 GB",
    training_at_most(20),
)
def memory_controlnet(run: Run) -> Found:
    return training_memory(run, "controlnet_canny_3_6b", "controlnet", 8, LIGHT)


@row("gpu", "peak memory: text to picture, 1024², 3.6 B + 1.5 B, bf16, stage by stage", "", at_most(9))
def memory_drawing(run: Run) -> Found:
    return drawing_memory(run, offload="stage")


@row("gpu", "peak memory: text to picture, 1024², 3.6 B + 1.5 B, NF4, stage by stage", "", at_most(4.5))
def memory_drawing_nf4(run: Run) -> Found:
    return drawing_memory(run, offload="stage", quantize="nf4")


def training_memory(run: Run, experiment: str, tiny_one: str, batch: int, overrides: list[str]) -> Found:
    """Peak of an experiment of finetune/ on pictures of 768 px (small: of its likeness in tiny/)."""
    name = f"tiny/{tiny_one}" if run.small else f"finetune/{experiment}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pictures(folder / "pictures", max(8, batch), 64 if run.small else 768)
        size = [f"data.batch_size={batch}", "data.num_workers=0", "run.precision=bf16"]
        wanted = [f"experiment={name}", f"data.shards={folder / 'pictures'}", *size, *overrides]
        settings = composed(wanted)
        if run.small:
            settings["recipe"].pop("tokens", None)  # their gradients pass through the text encoder
        estimate = estimated_bytes(settings)
        trained = without_files(settings)
        peak, (_, seconds) = peak_bytes(
            run, lambda: take_steps(trained, folder / "run", run.device.type, STEPS)
        )
    facts = {"experiment": name, "overrides": wanted[2:], "step_s": seconds, "estimate_gb": estimate / GB}
    result = found(run, peak, facts)
    result.figures["estimate_error"] = abs(estimate - peak) / peak
    return result


def estimated_bytes(settings: Mapping[str, Any]) -> int:
    """What `scripts.estimate` counts for these settings, without what CUDA takes for itself."""
    needs = Needs(Paper(settings))
    memory = needs.memory(Chooser(needs, frozenset(), 1).own)
    return memory.peak - memory.context


def drawing_memory(run: Run, **settings: str) -> Found:
    """Peak of drawing one picture."""
    with tempfile.TemporaryDirectory() as place:
        size = tiny() if run.small else full_size()
        write(Path(place), size, run.device, torch.bfloat16)
        draw = our_pictures(our_cascade(Path(place), run.device, "bf16", **settings), size, 1)
        peak, _ = peak_bytes(run, draw)
    return found(run, peak, {"px": size.px, **settings})


def peak_bytes(run: Run, action: Callable[[], T]) -> tuple[int, T]:
    """Most bytes that tensors held at once on the GPU; on a CPU the most that the process ever held."""
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    result = action()
    if run.device.type == "cuda":
        return torch.cuda.max_memory_allocated(), result
    return most_held_bytes(), result


def found(run: Run, peak: int, facts: dict[str, Any]) -> Found:
    if run.device.type != "cuda":
        facts["check"] = "on a CPU: the memory of the whole process, packages included"
    return Found({"peak_gb": peak / GB}, facts=facts)
