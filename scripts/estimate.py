"""What a training of Stage C needs, worked out on paper: time, memory, network, storage, data cores.

python -m scripts.estimate [experiment=train/stage_c_3_6b parallel=hsdp …] [--gpus 128] [--gpu h100] …

The settings are those of `python -m train`. Counted: the operations of the networks in the settings, built
without memory (matrix products, convolutions, attention). Assumed, and to be set by options: what machines
reach. docs/scale.md says where the default assumptions come from. Nothing here was measured on a GPU.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from modules import build
from modules.command_lines import Parser, positive
from modules.schema import one_line

ROOT = Path(__file__).parents[1]
PEAK_TFLOPS = {"a100": 312.0, "h100": 989.0}
"""Dense bf16 of the SXM cards, by NVIDIA's data sheets."""
FROZEN = {"text_encoder": (0.632e9, 77, 0.695e9), "image_encoder": (0.302e9, 257, 0.304e9)}
"""CLIP bigG's text and CLIP L's picture transformer: parameters that multiply, tokens, all parameters."""
TEXT_STATES = 77 * 1280 + 1280  # numbers per caption, of which precomputed shards hold one set
GB, TB = 1e9, 1e12


@dataclass(frozen=True)
class Cost:
    """Of one picture, and of the networks."""

    learning: float  # parameters that learn
    frozen: float  # parameters that do not
    forward_flops: float  # of the learning network
    frozen_flops: float  # forward passes of the others
    latents: int  # numbers per picture


def settings(overrides: list[str]) -> dict[str, Any]:
    """The settings of a training, as `train` composes them. Raises ValueError for what it refuses."""
    command = [sys.executable, "-m", "train", "--cfg", "job", "data.shards=none", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr.strip().removeprefix("error: "))
    config: dict[str, Any] = yaml.safe_load(done.stdout)
    return config


def cost(config: dict[str, Any]) -> Cost:
    """Count the operations for a square picture (two for each multiplication with addition)."""
    models, side = config["model"], config["data"]["image_size_px"]
    if absent := {"stage_c", "semantic_compressor"} - models.keys():
        raise ValueError(f"experiment: expected one that trains Stage C, found one without {min(absent)}")
    with torch.device("meta"), torch.no_grad():
        stage_c = build("stage_c", models["stage_c"]["config"])
        compressor = build("semantic_compressor", models["semantic_compressor"]["config"]).eval()
        with FlopCounterMode(display=False) as of_compressor:
            latents = compressor(torch.randn(1, 3, side, side))
        widths = {"clip_text": (77, 1280), "clip_text_pooled": (1, 1280), "clip_img": (1, 768)}
        conditions = {name: torch.randn(1, *shape) for name, shape in widths.items()}
        with FlopCounterMode(display=False) as of_stage_c:
            stage_c(torch.randn_like(latents), torch.rand(1), **conditions)
    used = [numbers for name, numbers in FROZEN.items() if name in models]
    return Cost(
        learning=sum(parameter.numel() for parameter in stage_c.parameters()),
        frozen=sum(p.numel() for p in compressor.parameters()) + sum(each[2] for each in used),
        forward_flops=of_stage_c.get_total_flops(),
        frozen_flops=of_compressor.get_total_flops() + sum(2 * each[0] * each[1] for each in used),
        latents=latents.numel(),
    )


def shards(config: dict[str, Any], options: argparse.Namespace) -> int:
    """Over how many GPUs the weights are shared out."""
    return {"fsdp": options.gpus, "hsdp": options.gpus_per_node}.get(config["parallel"]["mode"], 1)


def memory(config: dict[str, Any], each: Cost, options: argparse.Namespace) -> dict[str, str]:
    """Bytes per GPU."""
    averaged = 4 if config["run"]["ema"]["enabled"] else 0
    state = (16 + averaged) * each.learning / shards(config, options)  # weight, gradient, two moments: fp32
    frozen = 2 * each.frozen
    activations = config["data"]["batch_size"] * options.activations_gb * GB
    rows = {"weights, gradients, moments, average": state, "frozen networks (bf16)": frozen}
    rows["activations (assumed)"] = activations
    return {f"memory per GPU: {name}": f"{value / GB:.1f} GB" for name, value in rows.items()} | {
        "memory per GPU: together, before buffers": f"{sum(rows.values()) / GB:.1f} GB"
    }


def speed(config: dict[str, Any], each: Cost, options: argparse.Namespace) -> dict[str, str]:
    """Operations, seconds, GPU hours, and the traffic between GPUs."""
    run, rows = config["run"], config["data"]["batch_size"]
    flops = 3 * each.forward_flops + each.frozen_flops
    per_step = rows * run["num_accum"]
    step_s = per_step * flops / (options.mfu * PEAK_TFLOPS[options.gpu] * 1e12)
    pictures = per_step * options.gpus * run["num_steps"]
    hours = step_s * run["num_steps"] / 3600
    share = shards(config, options)
    # Sharded weights are gathered in bf16 forward and backward in every micro-step, and gradients scattered
    # in fp32; then the shards' gradients are summed between the groups, which sends them twice.
    within = (4 * run["num_accum"] + 4) * each.learning * (1 - 1 / share)
    between = 2 * 4 * each.learning / share if options.gpus > share else 0.0
    return {
        "operations per picture": f"{flops / 1e12:.2f} T (Stage C forward {each.forward_flops / 1e12:.2f} T,"
        f" backward twice that; frozen networks {each.frozen_flops / 1e12:.2f} T)",
        "pictures in all": f"{pictures / 1e6:.0f} M, {pictures / options.pictures:.1f} epochs",
        "operations in all": f"{pictures * flops:.2e}",
        "step": f"{step_s:.2f} s for {per_step * options.gpus} pictures,"
        f" {per_step * options.gpus / step_s:.0f} pictures/s",
        "time": f"{hours:.0f} h = {hours / 24:.1f} days; {hours * options.gpus:.0f} {options.gpu}-hours",
        "traffic per GPU within its group": f"{within / step_s / GB:.1f} GB/s",
        "traffic per GPU between groups": f"{between / step_s / GB:.1f} GB/s",
        "data cores": f"{per_step * options.gpus / step_s / options.core_pictures:.0f}"
        f" ({per_step / step_s / options.core_pictures:.2f} per GPU)",
        "reading pictures": f"{per_step * options.gpus / step_s * options.picture_kb / 1e6:.2f} GB/s",
    }


def storage(config: dict[str, Any], each: Cost, options: argparse.Namespace) -> dict[str, str]:
    """Bytes of data sets and checkpoints."""
    latents_kb = 2 * (each.latents + TEXT_STATES + 768) / 1e3
    state = (12 + (4 if config["run"]["ema"]["enabled"] else 0)) * each.learning
    return {
        "pictures": f"{options.pictures * options.picture_kb * 1e3 / TB:.1f} TB",
        "precomputed instead": f"{options.pictures * latents_kb * 1e3 / TB:.1f} TB ({latents_kb:.0f} kB each,"
        f" of which latents {2 * each.latents / 1e3:.0f} kB)",
        "checkpoint": f"{state / GB:.0f} GB,"
        f" {state / options.disk_gb_s / GB:.0f} s at {options.disk_gb_s:g} GB/s",
    }


def estimate(config: dict[str, Any], options: argparse.Namespace) -> dict[str, str]:
    """All figures, by what they are. Raises ValueError for another recipe."""
    if config["recipe"]["name"] != "stage_c":
        raise ValueError(f"recipe: expected stage_c, found {config['recipe']['name']}")
    each = cost(config)
    mode = config["parallel"]["mode"]
    found = {"learns": f"{each.learning / 1e9:.2f} B parameters, {mode}"}
    return (
        found | memory(config, each, options) | speed(config, each, options) | storage(config, each, options)
    )


def arguments() -> Parser:
    parser = Parser(prog="python -m scripts.estimate", description=__doc__)
    add, number = parser.add_argument, positive(float)
    add("--gpus", type=positive(int), default=128)
    add("--gpus-per-node", type=positive(int), default=8)
    add("--gpu", choices=sorted(PEAK_TFLOPS), default="h100")
    add("--mfu", type=number, default=0.4, help="useful share of the peak (default: %(default)s)")
    add("--pictures", type=number, default=100e6, help="of the data set (default: %(default)g)")
    add("--picture-kb", type=number, default=266.0, help="of one in its shard (default: %(default)g)")
    add(
        "--core-pictures",
        type=number,
        default=77.0,
        help="per core and second (default: %(default)g)",
    )
    add(
        "--activations-gb",
        type=number,
        default=0.5,
        help="per picture of a micro-step (default: %(default)g)",
    )
    add("--disk-gb-s", type=number, default=2.0, help="of all ranks together (default: %(default)g)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options, overrides = arguments().parse_known_args(argv)
    try:
        config = settings(overrides or ["experiment=train/stage_c_3_6b", "parallel=hsdp"])
        found = estimate(config, options)
    except ValueError as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    width = max(map(len, found))
    for name, text in found.items():
        print(f"{name:<{width}}  {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
