"""One guided step of a stage, as a pipeline does it: network, guidance, sampler."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import gdf
from benchmarks.frame import Found, Run, Target, Turn, row
from benchmarks.networks import (
    call_peer,
    compiled_by_blocks,
    conditions,
    operations,
    peer_of,
    random_network,
    relative_difference,
    released,
)
from inference.inputs import Inputs
from inference.sampling import sample

Tensors = Mapping[str, Tensor]
DTYPE = torch.bfloat16
MANY_STEPS = 1000  # more than rounds: a turn is always a step in the middle
ALIKE = 0.05  # of bf16 networks with the same weights, relative to the largest value


@row(
    "cpu",
    "Stage C 1 B, bf16, one guided step at 24 × 24",
    "diffusers' StableCascadeUNet and scheduler",
    {"ratio": Target("at most", 0.5)},
    seconds=25,
)
def stage_c_1b_step(run: Run) -> Found:
    config = released("stage_c", "1b", run.small)
    side = 4 if run.small else 24
    return compare_steps(run, "stage_c", config, (1, 16, side, side), guidance=4.0)


@row(
    "cpu",
    "Stage B 700 M, bf16, one step at 64 × 64 latents",
    "diffusers' StableCascadeUNet and scheduler",
    {"ratio": Target("at most", 0.6)},
    seconds=20,
)
def stage_b_700m_step(run: Run) -> Found:
    config = released("stage_b", "700m", run.small)
    side = 16 if run.small else 64
    return compare_steps(run, "stage_b", config, (1, 4, side, side), guidance=1.1)


def compare_steps(
    run: Run, stage: str, config: Mapping[str, Any], shape: tuple[int, ...], guidance: float
) -> Found:
    """Steps of the same network in both; outputs are compared first, so that both do the same work."""
    network = random_network(stage, config, run.device, DTYPE).eval().requires_grad_(False)
    theirs = peer_of(stage, network).eval().requires_grad_(False)
    inputs = conditions(stage, config, shape, run.device, DTYPE)
    doubled = (2 * shape[0], *shape[1:])  # what the network sees, with guidance
    difference = outputs_differ(network, theirs, shape, inputs)
    ours: dict[str, Turn] = {
        "eager": our_steps(network, inputs, shape, guidance),
        "compiled by blocks": our_steps(compiled_by_blocks(network).eval(), inputs, shape, guidance),
    }
    peers: dict[str, Turn] = {
        "eager": their_steps(theirs, inputs, shape, guidance),
        "compiled": their_steps(torch.compile(theirs), inputs, shape, guidance),
    }
    found = run.compare(ours, peers, operations=operations(stage, config, doubled), shorten=True).found()
    found.facts |= {"relative_difference": difference, "latents": list(shape)}
    found.facts["once_per_picture_s"] = preparation(run, network, inputs, shape)
    return found


def our_steps(network: nn.Module, inputs: Tensors, shape: tuple[int, ...], guidance: float) -> Turn:
    """One more step of a picture that is being drawn."""
    place = next(network.parameters()).device
    settings = gdf.SamplingSettings(MANY_STEPS, guidance, rescale=0.0)  # which diffusers does not have
    unconditional = {name: torch.zeros_like(value) for name, value in inputs.items()}
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(place)
    rngs = [torch.Generator().manual_seed(row) for row in range(shape[0])]
    given = Inputs(inputs, unconditional)
    steps = sample(network, gdf.build(gdf.RELEASED_SPEC), settings, given, noise, rngs)

    def step() -> None:
        with torch.inference_mode():
            next(steps)

    return step


def preparation(run: Run, network: Any, inputs: Tensors, shape: tuple[int, ...]) -> float:
    """Seconds of what is computed once per picture, not in each step; for both halves of guidance."""
    both = {name: torch.cat([value, torch.zeros_like(value)]) for name, value in inputs.items()}
    x = torch.zeros(2 * shape[0], *shape[1:], device=run.device, dtype=DTYPE)
    with torch.inference_mode():
        return statistics.median(run.timed(lambda: network.prepare(x, **both)) for _ in range(3))


def their_steps(network: Any, inputs: Tensors, shape: tuple[int, ...], guidance: float) -> Turn:
    """The same with diffusers' scheduler, in its pipelines' order of things."""
    from diffusers import DDPMWuerstchenScheduler

    scheduler: Any = DDPMWuerstchenScheduler()
    place = next(iter(inputs.values())).device
    scheduler.set_timesteps(MANY_STEPS, device=place)
    rng = torch.Generator(place).manual_seed(0)
    both = {name: torch.cat([value, torch.zeros_like(value)]) for name, value in inputs.items()}

    @torch.no_grad()
    def steps() -> Iterator[Tensor]:
        x = torch.randn(shape, generator=rng, device=place).to(DTYPE)
        for time in scheduler.timesteps[:-1]:
            ratio = time.expand(len(x)).to(DTYPE)
            twice = call_peer(network, torch.cat([x] * 2), torch.cat([ratio] * 2), both)
            conditional, unconditional = twice.chunk(2)
            guided = torch.lerp(unconditional, conditional, guidance)
            x = scheduler.step(guided, ratio, x, generator=rng).prev_sample
            yield x

    going = steps()
    return lambda: next(going)


@torch.no_grad()
def outputs_differ(network: nn.Module, theirs: nn.Module, shape: Sequence[int], inputs: Tensors) -> float:
    """How far the two networks' outputs are apart. RuntimeError where they are not the same network."""
    place = next(network.parameters()).device
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(2)).to(place, DTYPE)
    r = torch.zeros(shape[0], device=place)  # others they embed with the few digits of bfloat16
    difference = relative_difference(network(x, r, **inputs), call_peer(theirs, x, r, inputs))
    if not difference <= ALIKE:
        raise RuntimeError(f"outputs of the same weights differ by {difference:.3g} of the largest value")
    return difference
