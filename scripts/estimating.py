"""The figures of `scripts.estimate`, which says what they are."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from dataset_tools.latent_facts import PARTS
from modules.command_lines import Parser, positive
from modules.schema import one_line
from train.budget.course import Assumed, Counted, course, shards, storage
from train.budget.gpus import GPUS, PRESENT, Gpu, gpu
from train.budget.measures import Chooser
from train.budget.memory import GB, Memory, Needs
from train.budget.paper import Paper
from train.budget.presets import PRESETS_GB, fitted
from train.budget.typed import typed_keys

ROOT = Path(__file__).parents[1]
Figures = dict[str, dict[str, str]]  # by section


def settings(overrides: list[str]) -> dict[str, Any]:
    """The settings of a training, as `train` composes them. Raises ValueError for what it refuses."""
    command = [sys.executable, "-m", "train", "--cfg", "job", "data.shards=none", *overrides]
    around = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=around)
    if done.returncode:
        raise ValueError(done.stderr.strip().removeprefix("error: "))
    config: dict[str, Any] = yaml.safe_load(done.stdout)
    if config.get("recipe") is None:
        raise ValueError("experiment: missing; `python -m train --help` lists them")
    return config


def estimate(plain: dict[str, Any], assumed: Assumed, typed: frozenset[str] = frozenset()) -> Figures:
    """All figures, by section and by what they are. Raises ValueError for settings that cannot be."""
    latents, chosen = PARTS if assumed.latents else None, {}
    if plain.get("memory") is not None:
        found = fitted(plain, typed, assumed.gpus, latents)
        plain, chosen = found.plain, {"chosen": found.line}
    needs = Needs(Paper(plain, latents), shards(plain, assumed))
    assumed = replace(assumed, latents=needs.paper.latents is not None)
    chooser = Chooser(needs, typed, assumed.gpus)
    memory = needs.memory(chooser.own)
    each = counted(needs.paper, memory, plain["data"]["batch_size"])
    return {
        "parameters": parameters(needs.paper),
        "memory per GPU, counted": bytes_by_kind(memory) | chosen,
        "presets": presets(chooser, memory.peak, assumed.gpu),
        f"course on {assumed.gpus} x {assumed.gpu.name} ({assumed.gpu.source}), assumed": course(
            plain, each, assumed
        ),
        "storage": storage(plain, each, assumed),
    }


def counted(paper: Paper, memory: Memory, batch_size: int) -> Counted:
    """Of one picture."""
    phases = {name: count / batch_size for name, count in memory.operations.items()}
    learning = sum(parameter.numel() for parameter in paper.learning)
    averaged = sum(parameter.numel() for parameter in paper.averaged())
    is_kept = paper.config.run.ema.enabled
    forward, backward, frozen = (phases.get(name, 0.0) for name in ("forward", "backward", "frozen"))
    return Counted(forward, backward, frozen, learning, averaged if is_kept else 0)


def parameters(paper: Paper) -> dict[str, str]:
    """Those that learn, and the frozen ones by network."""
    found = {"learn": f"{millions(sum(p.numel() for p in paper.learning))}, {paper.config.parallel.mode}"}
    learning = set(paper.learning)
    for name, network in paper.frozen().items():
        found[f"frozen: {name}"] = millions(sum(p.numel() for p in network.parameters() if p not in learning))
    return found


def millions(count: int) -> str:
    """A number of parameters."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"


def bytes_by_kind(memory: Memory) -> dict[str, str]:
    """What memory is for."""
    sizes = {
        "weights that learn": memory.weights,
        "gradients": memory.gradients,
        "optimizer states": memory.optimizer,
        "moving average": memory.average,
        **{f"frozen: {name}": size for name, size in memory.frozen.items()},
        "activations, casts, temporary results, at most": memory.working,
        "while sample sheets are drawn, at most": memory.sheets,
        "CUDA's own (assumed)": memory.context,
    }
    found = {name: f"{size / GB:.2f} GB" for name, size in sizes.items() if size >= 0.005 * GB}
    return found | {"together, at the worst moment": f"{memory.peak / GB:.1f} GB"}


def presets(chooser: Chooser, own_peak: int, gpu: Gpu) -> dict[str, str]:
    """What each would choose, and what the GPU asks for."""
    found = {}
    for gb in PRESETS_GB:
        choice = chooser.cheapest(gb * GB)
        found[f"memory={gb}gb"] = "not enough"
        if choice is not None:
            found[f"memory={gb}gb"] = f"{choice.memory.peak / GB:.1f} GB: {chooser.words(choice.measures)}"
    if gpu.memory_gb:
        found[f"on {gpu.name}, {gpu.memory_gb:g} GB"] = advice(chooser, own_peak, gpu.memory_gb)
    return found


def advice(chooser: Chooser, own_peak: int, memory_gb: float) -> str:
    """What to type for a GPU of this memory."""
    if own_peak <= memory_gb * GB:
        return "fits as it is"
    fitting = [gb for gb in PRESETS_GB if gb <= memory_gb and chooser.cheapest(gb * GB)]
    if fitting:
        return f"too little as it is; memory={max(fitting)}gb fits"
    return f"too little; the least is {chooser.least().memory.peak / GB:.1f} GB"


def arguments(description: str | None = None) -> Parser:
    parser = Parser(prog="python -m scripts.estimate", description=description)
    add, number = parser.add_argument, positive(float)
    names = f"one of {', '.join(GPUS)}, or {PRESENT} (default: %(default)s)"
    add("--gpus", type=positive(int), default=1, help="processes (default: %(default)s)")
    add("--gpus-per-node", type=positive(int), default=8)
    add("--gpu", default="h100", help=names)
    add("--mfu", type=number, default=0.4, help="useful share of the peak (default: %(default)s)")
    add("--price", type=number, help="per GPU and hour (default: what is known of the GPU's)")
    add("--pictures", type=number, default=100e6, help="of the data set (default: %(default)g)")
    add("--picture-kb", type=number, default=266.0, help="of one in its shard (default: %(default)g)")
    add("--core-pictures", type=number, default=77.0, help="per core and second (default: %(default)g)")
    add(
        "--latents",
        action="store_true",
        help="as on latents that `precompute` made, where no shards are named",
    )
    add("--disk-gb-s", type=number, default=2.0, help="of all ranks together (default: %(default)g)")
    return parser


def assume(options: argparse.Namespace) -> Assumed:
    """The options. Raises ValueError for a GPU that is not known."""
    return Assumed(**{**vars(options), "gpu": gpu(options.gpu)})


def main(argv: Sequence[str] | None = None, description: str | None = None) -> int:
    """The command; returns the exit status."""
    options, overrides = arguments(description).parse_known_args(argv)
    try:
        assumed = assume(options)
        figures = estimate(settings(overrides), assumed, typed_keys(overrides, ROOT / "configs"))
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    width = max(len(name) for section in figures.values() for name in section)
    for title, section in figures.items():
        print(title)
        for name, text in section.items():
            print(f"  {name:<{width}}  {text}")
    return 0
