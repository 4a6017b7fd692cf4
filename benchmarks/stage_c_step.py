"""One sampling step and one training step of a released-size Stage C: seconds and memory.

python -m benchmarks.stage_c_step [--size 1b] [--px 1024] [--learns up_blocks]

Weights are random, bfloat16. The training step is forward, backward, clipping and fused AdamW on the
parameters whose names begin with --learns ("" for all).
"""

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

import gdf
from modules import StageC, build
from modules.conditions import latent_size

CONFIGS = Path(__file__).parents[1] / "configs" / "model" / "stage_c"


def make(size: str) -> StageC:
    """Stage C with random weights in bfloat16."""
    config = yaml.safe_load((CONFIGS / f"{size}.yaml").read_text())["config"]
    with torch.device("meta"):
        network = build("stage_c", config)
    network.to(torch.bfloat16).to_empty(device="cpu")
    network.init_weights()
    torch.nn.init.normal_(network.get_parameter("clf.1.weight"), std=0.02)  # else the prediction is 0
    assert isinstance(network, StageC)
    return network


def conditions(batch: int) -> dict[str, torch.Tensor]:
    """Random text and picture embeddings of the released widths."""
    widths = {"clip_text": (77, 1280), "clip_text_pooled": (1, 1280), "clip_img": (1, 768)}
    return {name: torch.randn(batch, *shape, dtype=torch.bfloat16) for name, shape in widths.items()}


def timed(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return round(time.perf_counter() - started, 2)


def peak_gib() -> float:
    """Peak resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def sampling_step(network: StageC, side: int) -> None:
    """One guided DDPM step from noise: two evaluations in one batch."""
    diffusion = gdf.build(gdf.RELEASED_SPEC)
    steps = diffusion.sample(
        network.eval(),
        conditions(1),
        (1, 16, side, side),
        generators=torch.Generator().manual_seed(0),
        sampler=gdf.DDPMSampler(),
        cfg=4.0,
        shift=2.0,
        timesteps=20,
        dtype=torch.bfloat16,
    )
    with torch.no_grad():
        _, x, _ = next(steps)
    assert x.isfinite().all()


def training_step(network: StageC, side: int, learns: str) -> None:
    """One optimizer step on one picture."""
    parameters = []
    for name, parameter in network.train().named_parameters():
        parameter.requires_grad_(name.startswith(learns))
        parameters += [parameter] if parameter.requires_grad else []
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    diffusion, generator = gdf.build(gdf.RELEASED_SPEC), torch.Generator().manual_seed(0)
    noised = diffusion.diffuse(torch.randn(1, 16, side, side, generator=generator), generators=generator)
    prediction = network(noised.noised.bfloat16(), noised.noise_cond, **conditions(1))
    loss = ((prediction.float() - noised.target) ** 2).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    assert loss.isfinite()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1b", choices=sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    parser.add_argument("--px", type=int, default=1024, help="side of the picture (default: %(default)s)")
    parser.add_argument("--learns", default="up_blocks", help="prefix of what learns (default: %(default)s)")
    options = parser.parse_args()
    side = latent_size(options.px, 42.67)
    result: dict[str, object] = {"size": options.size, "px": options.px, "latents": side}
    network = make(options.size)
    result["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    result["sampling_step_s"] = timed(lambda: sampling_step(network, side))
    result["sampling_peak_gib"] = peak_gib()
    result["training_step_s"] = timed(lambda: training_step(network, side, options.learns))
    result["learning_parameters"] = sum(p.numel() for p in network.parameters() if p.requires_grad)
    result["training_peak_gib"] = peak_gib()
    result |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
