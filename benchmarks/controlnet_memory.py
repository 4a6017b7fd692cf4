"""How much memory training a ControlNet for the released Stage C of 3.6 B takes on one GPU, by arithmetic.

python -m benchmarks.controlnet_memory [--controlnet canny] [--batch 8] [--px 768] [--keep]

The networks lie on the meta device, where tensors have sizes but no contents; what autograd keeps of one
forward pass is counted there. Base, text encoder and compressor are frozen, in bfloat16. Not counted: what a
single block needs while it computes, and what CUDA takes for itself.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import modules
from train.config import ParallelConfig
from train.parallel.preparation import prepare
from train.parallel.world import World

CONFIGS = Path(__file__).parents[1] / "configs" / "model"
FROZEN_BYTES = 2  # of a parameter, bfloat16
LEARNING_BYTES = 4 * 5  # in float32: the parameter, its gradient, AdamW's two states, the moving average
TEXT_ENCODER_PARAMETERS = 694_659_840  # the text part of CLIP ViT-bigG-14
TEXT_TOKENS, PIXELS_PER_LATENT = 77, 32
CONTROLS = ("canny", "inpainting", "super_resolution")


def make(name: str, option: str) -> Any:
    """A network of its released size on the meta device, in bfloat16 as autocast computes."""
    config = yaml.safe_load((CONFIGS / name / f"{option}.yaml").read_text())["config"]
    with torch.device("meta"):
        return modules.build(name, config).to(torch.bfloat16)


def kept_bytes(base: nn.Module, controlnet: Any, batch: int, px: int) -> int:
    """What autograd keeps of one forward pass for the backward pass, but for the weights."""
    weights = {storage(t) for net in (base, controlnet) for t in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[storage(tensor)] = tensor  # alive, so that its storage's number is not given away again
        return tensor

    def random(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, device="meta", dtype=torch.bfloat16)

    side = px // PIXELS_PER_LATENT
    control_side = px if controlnet.factor > 1 else side
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        maps = controlnet(random(controlnet.c_in, control_side, control_side))
        text, pooled, image = random(TEXT_TOKENS, 1280), random(1, 1280), random(1, 768)
        base(random(16, side, side), torch.rand(batch, device="meta"), text, pooled, image, cnet=maps)
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)


def storage(tensor: Tensor) -> int:
    """A number that tensors share which share memory."""
    return tensor.untyped_storage()._cdata


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--controlnet", default="canny", choices=CONTROLS)
    parser.add_argument("--batch", type=int, default=8, help="pictures per GPU (default: %(default)s)")
    parser.add_argument("--px", type=int, default=768, help="side of a picture (default: %(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="keep all activations instead of recomputing them"
    )
    options = parser.parse_args()
    base, controlnet = make("stage_c", "3_6b"), make("controlnet", options.controlnet)
    compressor = make("semantic_compressor", "base")
    base.eval().requires_grad_(False)
    recompute = ParallelConfig(activation_checkpointing=not options.keep)
    prepare([base, controlnet.train()], recompute, World(0, 1, torch.device("meta")))
    counts = {
        "base": FROZEN_BYTES * num_parameters(base),
        "encoders": FROZEN_BYTES * (TEXT_ENCODER_PARAMETERS + num_parameters(compressor)),
        "controlnet": LEARNING_BYTES * num_parameters(controlnet),
        "activations": kept_bytes(base, controlnet, options.batch, options.px),
    }
    gigabytes = {name: round(count / 1e9, 2) for name, count in counts.items()}
    print(
        json.dumps(
            vars(options) | {"GB": gigabytes, "GB_in_all": round(sum(gigabytes.values()), 1)}, indent=1
        )
    )


if __name__ == "__main__":
    main()
