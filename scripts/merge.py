"""Merge LoRAs into a checkpoint, or two checkpoints into one.

python -m scripts.merge outputs/mine merged.safetensors --lora style.safetensors:0.8 outputs/mine/lora
python -m scripts.merge models/stage_c.safetensors between.safetensors --other outputs/mine/stage_c:0.5
python -m scripts.merge pipeline merged_prior --lora style.safetensors --part prior --to diffusers
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dataset_tools.progress import progress_bar
from modules.adapters.lora import LoRA
from modules.adapters.lora_state import LoRAState
from modules.command_lines import Parser
from modules.encoders import TextEncoder
from modules.weights import fingerprint
from modules.weights.conversion import chosen, convert, gather
from modules.weights.lazy import LazyTensor, State, lazy_state
from modules.weights.loading import filled
from modules.weights.lora_files import find_lora, read_lora
from modules.weights.parts import ENCODERS, Part
from modules.weights.writers import WRITERS, Settings
from scripts.weights import DTYPES, described, run_command, size_of


@dataclass(frozen=True)
class Weighted:
    """A file or run and how much of it counts."""

    path: Path
    weight: float

    @classmethod
    def parse(cls, text: str) -> "Weighted":
        """PATH or PATH:WEIGHT, whose weight is a finite number; without one it is 1."""
        path, _, weight = text.rpartition(":")
        try:
            found = float(weight) if path else 1.0
        except ValueError:
            return cls(Path(text), 1.0)
        if not math.isfinite(found):
            raise argparse.ArgumentTypeError(f"expected a finite weight, found {text!r}")
        return cls(Path(path or text), found)


def blended(one: State, other: State, weight: float) -> dict[str, LazyTensor]:
    """(1 - weight) one + weight other for all floating tensors; read when they are written.

    ValueError when the two have other tensors or shapes.
    """
    if unlike := sorted(
        name for name in one.keys() | other.keys() if _shape(one, name) != _shape(other, name)
    ):
        few = ", ".join(unlike[:3])
        raise ValueError(
            f"the two networks differ in {len(unlike)} names or shapes ({few}); only like ones merge"
        )

    def mixture(name: str) -> LazyTensor:
        first, second = one[name], other[name]
        if not first.dtype.is_floating_point:
            return first
        return replace(
            first, read=lambda: first.read().float().lerp(second.read().float(), weight).to(first.dtype)
        )

    return {name: mixture(name) for name in one}


def _shape(state: State, name: str) -> tuple[int, ...] | None:
    return state[name].shape if name in state else None


def with_other(part: Part, other: Weighted, ema: bool) -> Part:
    """The part mixed with the same network of another file; of a run's, the averaged one if `ema`."""
    theirs = gather(other.path, ema)
    if part.name not in theirs:
        raise ValueError(f"{other.path}: expected the network {part.name}, found {', '.join(theirs)}")
    state = blended(part.state, theirs[part.name].state, other.weight)
    return replace(
        part, state=state, facts=noted(part.facts, "checkpoint", theirs[part.name].origin, other.weight)
    )


def with_lora(part: Part, lora: Weighted, state: LoRAState, ema: bool) -> Part:
    """The part with a LoRA added to its weights; ema: which of a run's it is."""
    if part.name == "text_encoder":
        assert part.origin
        network: nn.Module = TextEncoder(source=str(part.origin.parent)).model
        # With what other LoRAs made of them, which is not in the file.
        network.load_state_dict({name: tensor.read() for name, tensor in part.state.items()}, strict=False)
        LoRA.from_state(state, network, part="text_encoder").merge(network, lora.weight)
    else:
        network = filled(part)
        LoRA.from_state(state, network).merge(network, lora.weight)
    facts = noted(part.facts, "lora", find_lora(lora.path, ema), lora.weight)
    return replace(part, state=lazy_state(network.state_dict()), facts=facts)


def noted(facts: Mapping[str, Any], kind: str, file: Path | None, weight: float) -> dict[str, Any]:
    """Facts that also say what was merged."""
    entry = {kind: file.name if file else None, "weight": weight}
    if file:
        entry["fingerprint"] = fingerprint(file)
    return {**facts, "merged": [*facts.get("merged", []), entry]}


def merged(options: argparse.Namespace) -> dict[str, Part]:
    """The networks to write. ValueError for a LoRA of a network that is not among them."""
    ema = not options.no_ema
    found = gather(options.base, ema)
    loras = [(lora, read_lora(lora.path, ema)) for lora in options.lora]
    for lora, state in loras:
        print(f"LoRA:    {lora.path}, for {state.facts['for']}, weight {lora.weight:g}")
    targets = [state.facts["for"] for _, state in loras] or [n for n in found if n not in ENCODERS][:1]
    parts = chosen(found, options.part or targets)
    for other in options.other:
        mixed = {name: with_other(part, other, ema) for name, part in parts.items() if name not in ENCODERS}
        parts = {**parts, **mixed}
    for lora, state in loras:
        held = {state.facts["for"]: state.parts["unet"] or state.numbered}
        held["text_encoder"] = state.parts["text_encoder"]
        for name, layers in held.items():
            if layers and name in parts:
                parts[name] = with_lora(parts[name], lora, state, ema)
            elif layers:
                print(f"left out: the {len(layers)} layers for {name}; --part {name} takes them")
        if tokens := [*state.tokens, *map("row {}".format, state.rows)]:
            print(f"left out: the tokens {', '.join(tokens)}; they stay in the LoRA's file")
    return parts


def merge(options: argparse.Namespace) -> None:
    """Merge what the command line names. ValueError when that is nothing."""
    if not options.lora and not options.other:
        raise ValueError("nothing to merge: name LoRAs with --lora or a checkpoint with --other")
    settings = Settings(options.to, DTYPES.get(options.dtype))
    parts = merged(options)
    total = sum(tensor.num_bytes for part in parts.values() for tensor in part.state.values())
    with progress_bar("writing", total) as advance:
        written = convert(parts, options.out, settings, advance)
    for name in written:
        print(f"merged:  {described(parts[name])}")
    print(f"written: {options.out} ({size_of(options.out)}), as {options.to}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m scripts.merge", description=__doc__)
    parser.add_argument(
        "base", metavar="BASE", type=Path, help="a weight file, a run, a folder of runs or a pipeline"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the file or folder to write; not there yet")
    weighted: dict[str, Any] = {"nargs": "+", "default": [], "type": Weighted.parse}
    weighted["metavar"] = "PATH[:WEIGHT]"
    parser.add_argument("--lora", **weighted, help="LoRA files or runs; weight 1 if none is given")
    parser.add_argument(
        "--other", **weighted, help="checkpoints: (1 - WEIGHT) of what is there + WEIGHT of this"
    )
    parser.add_argument(
        "--part", nargs="+", default=[], metavar="NAME", help="networks to write; else the merged one"
    )
    parser.add_argument("--to", choices=WRITERS, default="official", help="layout of OUT (default: official)")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="number format of the floating weights; else as they are"
    )
    parser.add_argument(
        "--no-ema", action="store_true", help="of a run, the plain weights, not the averaged ones"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge; returns the exit status."""
    options = parse(arguments)
    return run_command(lambda: merge(options))


if __name__ == "__main__":
    sys.exit(main())
