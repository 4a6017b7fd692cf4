"""Weight files from any layout to any other: official files, diffusers folders, ComfyUI checkpoints, LoRAs.

python -m scripts.convert_checkpoint outputs/mine mine_pipeline --to diffusers --dtype bf16 --variant bf16
python -m scripts.convert_checkpoint all_in_one.safetensors stage_c.safetensors --to official --part stage_c
python -m scripts.convert_checkpoint outputs/mine/lora lora.safetensors --to kohya

What IN is shows in the names of its tensors. OUT is a file (.safetensors) or a folder that is not there yet.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dataset_tools.progress import progress_bar
from modules.adapters.magnitudes import with_original_norms
from modules.adapters.official_names import name_layers
from modules.command_lines import Parser
from modules.schema import nearest
from modules.weights import load_network
from modules.weights.conversion import GROUPS, chosen, convert, gather
from modules.weights.folders import tokenizer_folder
from modules.weights.lora_files import OFFICIAL, read_lora, write_lora
from modules.weights.lora_layouts import LAYOUTS
from modules.weights.parts import Part
from modules.weights.pipelines import other_diffusion
from modules.weights.writers import WRITERS, Settings
from scripts.weights import DTYPES, described, holds_lora, in_format, meta_network, run_command, size_of

LORA_LAYOUTS = (*LAYOUTS, OFFICIAL)


def convert_networks(options: argparse.Namespace) -> None:
    """Convert networks and encoders."""
    settings = Settings(options.to, DTYPES.get(options.dtype), options.variant)
    found = gather(options.source, ema=not options.no_ema)
    print("found:   " + "\n         ".join(described(part) for part in found.values()))
    parts = chosen(found, options.part)
    if options.tokenizer:
        parts = with_tokenizer(parts, options.tokenizer)
    total = sum(tensor.num_bytes for part in parts.values() for tensor in part.state.values())
    with progress_bar("writing", total) as advance:
        written = convert(parts, options.out, settings, advance)
    print(f"written: {options.out} ({size_of(options.out)}): {', '.join(written)}, as {options.to}")
    for problem in filter(None, map(other_diffusion, parts.values())):
        print(f"beware:  {problem}")
    if left_out := [name for name in parts if name not in written]:
        print(f"left out, having no place there: {', '.join(left_out)}")


def with_tokenizer(parts: Mapping[str, Part], folder: Path) -> dict[str, Part]:
    """The parts with this tokenizer beside the text encoder. ValueError when there is none in the folder."""
    place = tokenizer_folder(folder)
    if place is None:
        raise ValueError(f"--tokenizer: expected a folder with tokenizer.json or vocab.json, found {folder}")
    return {
        name: replace(part, tokenizer=place) if name == "text_encoder" else part
        for name, part in parts.items()
    }


def convert_lora(options: argparse.Namespace) -> None:
    """Convert a LoRA file."""
    if options.to not in LORA_LAYOUTS:
        raise ValueError(f"--to: found {options.to!r} for a LoRA; {nearest(options.to, LORA_LAYOUTS)}")
    if options.out.suffix != ".safetensors" or options.out.exists():
        raise ValueError(f"{options.out}: expected the name of a .safetensors file that is not there yet")
    state = read_lora(options.source, ema=not options.no_ema)
    if state.numbered:
        if options.base is None:
            raise ValueError(f"{options.source}: its layers have numbers, no names; --base FILE gives them")
        state = name_layers(state, meta_network(options.base, state.facts["for"]), options.filters)
    elif options.base is not None and options.to == "comfyui":
        state = with_original_norms(state, load_network(options.base, state.facts["for"]))
    layers = {part: len(factors) for part, factors in state.parts.items() if factors}
    held = ", ".join(f"{number} layers of the {part}" for part, number in layers.items())
    tokens = f", the tokens {', '.join(state.tokens)}" if state.tokens else ""
    print(
        f"found:   a LoRA for {state.facts['for']} ({state.facts['layout']}): {held or 'no layers'}{tokens}"
    )
    dtype = DTYPES.get(options.dtype)
    write_lora(options.out, state if dtype is None else in_format(state, dtype), options.to)
    print(f"written: {options.out} ({size_of(options.out)}), as {options.to}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m scripts.convert_checkpoint", description=__doc__)
    parser.add_argument(
        "source", metavar="IN", type=Path, help="a weight file, a run, a folder of runs or a pipeline"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the file or folder to write")
    parser.add_argument(
        "--to", required=True, help=f"{', '.join(WRITERS)}; of a LoRA {', '.join(LORA_LAYOUTS)}"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="number format of the floating weights; else as they are"
    )
    groups = " ".join(f"{name} ({', '.join(names)})" for name, names in GROUPS.items())
    parser.add_argument(
        "--part", nargs="+", default=[], metavar="NAME", help=f"only these networks; also {groups}; else all"
    )
    parser.add_argument(
        "--variant", metavar="WORD", help="put into the names of diffusers' files, such as bf16"
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FOLDER", help="tokenizer of a text encoder without one"
    )
    parser.add_argument(
        "--base",
        type=Path,
        metavar="FILE",
        help="the network of a LoRA: names the layers of an official one; lets DoRA mean the same in ComfyUI",
    )
    parser.add_argument(
        "--filters",
        nargs="+",
        default=[],
        metavar="WORD",
        help="parts of the layers' names that an official LoRA was trained with, where shapes do not tell",
    )
    parser.add_argument(
        "--no-ema", action="store_true", help="of a run, the plain weights, not the averaged ones"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; returns the exit status."""
    options = parse(arguments)
    return run_command(lambda: (convert_lora if holds_lora(options.source) else convert_networks)(options))


if __name__ == "__main__":
    sys.exit(main())
