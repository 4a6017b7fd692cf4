"""The difference of two checkpoints as a LoRA: of all changes of its rank, the nearest one.

python -m scripts.extract_lora models/stage_c.safetensors outputs/mine/stage_c change.safetensors --rank 16
python -m scripts.extract_lora BASE TUNED OUT --layers "*attention*=32" "*channelwise*=8" --to kohya
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dataset_tools.arguments import whole_number
from modules.adapters.layers import adaptable_layers
from modules.adapters.lora import LoRA
from modules.adapters.lora_state import Factors
from modules.command_lines import Parser
from modules.network import Network
from modules.weights import find_weights, fingerprint, load_network
from modules.weights.conversion import gather
from modules.weights.lora_files import OFFICIAL, write_lora
from modules.weights.lora_layouts import LAYOUTS
from scripts.weights import DTYPES, in_format, run_command, size_of

UNETS = ("stage_c", "stage_b")
PACKED = re.compile(r"to_[qkv]\.weight$")


def weight_of(layers: Mapping[str, nn.Module], name: str) -> Tensor:
    """The weight of a layer."""
    weight = layers[name].weight
    assert isinstance(weight, Tensor)
    return weight


def singular_values(factors: Factors) -> Tensor:
    """Of the product of up and down, largest first; from its small triangles, not from the product."""
    up, down = factors.up.flatten(1).double(), factors.down.flatten(1).double()
    return torch.linalg.svdvals(torch.linalg.qr(up).R @ torch.linalg.qr(down.T).R.T)


@torch.no_grad()
def energy_kept(lora: LoRA, base: Network, tuned: Network) -> list[tuple[int, float]]:
    """For ranks 1, 2, 4, … up to the LoRA's: which share of the squared difference it would hold."""
    before, after = adaptable_layers(base), adaptable_layers(tuned)
    total = sum(
        float((weight_of(after, name).double() - weight_of(before, name).double()).square().sum())
        for name in lora.layers
    )
    values = [singular_values(layer.factors()) for layer in lora.layers.values()]
    most = max(len(each) for each in values)
    ranks = sorted({most, *(2**n for n in range(most.bit_length()))})
    return [(rank, sum(float(each[:rank].square().sum()) for each in values) / total) for rank in ranks]


def extract(options: argparse.Namespace) -> None:
    """Extract and write, and say how much of the difference each rank keeps."""
    if options.out.suffix != ".safetensors" or options.out.exists():
        raise ValueError(f"{options.out}: expected the name of a .safetensors file that is not there yet")
    name = options.network or unet_of(options.base)
    base: Network = load_network(options.base, name)
    tuned: Network = load_network(options.tuned, name)
    ranks = {"*": options.rank} | {pattern: rank for pattern, rank in options.layers}
    lora = LoRA.extract(base, tuned, ranks, options.energy)
    print(
        f"found:   {len(lora.layers)} of {len(adaptable_layers(base))} layers of {name} differ and are chosen"
    )
    print("rank     share of these layers' difference that it keeps")
    for rank, share in energy_kept(lora, base, tuned):
        print(f"{rank:4d}     {share:.2%}")
    if others := other_changes(lora, base, tuned):
        print(f"left out: changes of {len(others)} other parameters, such as {', '.join(others[:3])}")
    file = find_weights(options.base, name)
    facts = {
        "base": {"network": name, "weights": str(options.base), "fingerprint": fingerprint(file)},
        "for": name,
        "extracted": {"from": str(options.tuned), "rank": ranks, "energy": options.energy},
    }
    state = lora.to_state(facts)
    write_lora(options.out, in_format(state, DTYPES[options.dtype]), options.to)
    print(f"written: {options.out} ({size_of(options.out)}), as {options.to}")


def unet_of(path: Path) -> str:
    """The U-Net that a file or folder holds, Stage C rather than Stage B."""
    found = gather(path)
    name = next((name for name in UNETS if name in found), None)
    if name is None:
        raise ValueError(f"{path}: expected stage_c or stage_b, found {', '.join(found)}")
    return name


def other_changes(lora: LoRA, base: Network, tuned: Network) -> list[str]:
    """Names of tensors that differ and that the LoRA leaves alone: biases, gains, layers not chosen."""
    changed = {f"{name}.weight" for name in lora.layers}
    changed |= {PACKED.sub("in_proj_weight", name) for name in changed}
    after = tuned.state_dict()
    return [
        name
        for name, tensor in base.state_dict().items()
        if name not in changed and not torch.equal(tensor, after[name])
    ]


def layer_rank(text: str) -> tuple[str, int]:
    """PATTERN=RANK."""
    pattern, _, rank = text.rpartition("=")
    if not pattern:
        raise argparse.ArgumentTypeError(f"expected PATTERN=RANK, found {text!r}")
    return pattern, whole_number(0)(rank)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m scripts.extract_lora", description=__doc__)
    where = "a weight file, a run, a folder of runs or a pipeline"
    parser.add_argument("base", metavar="BASE", type=Path, help=f"what was trained from: {where}")
    parser.add_argument("tuned", metavar="TUNED", type=Path, help="what came of it")
    parser.add_argument("out", metavar="OUT", type=Path, help="the .safetensors file to write; not there yet")
    parser.add_argument(
        "--rank", type=whole_number(0), default=16, help="the most, of every layer (default: 16)"
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        default=[],
        type=layer_rank,
        metavar="PATTERN=RANK",
        help="other ranks by layer name",
    )
    parser.add_argument(
        "--energy", type=float, default=1.0, help="lower ranks where they hold this share (0 to 1)"
    )
    parser.add_argument("--network", choices=UNETS, help="default: Stage C if BASE holds it, else Stage B")
    parser.add_argument(
        "--to", choices=(*LAYOUTS, OFFICIAL), default="comfyui", help="layout (default: comfyui)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="number format (default: fp32)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Extract; returns the exit status."""
    options = parse(arguments)
    return run_command(lambda: extract(options))


if __name__ == "__main__":
    sys.exit(main())
