"""What Stage C says of given pictures at each noise level: its errors, and the pictures it guesses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

import gdf
from inference.pairing import pair_up
from inference.pipeline import Cascade
from inference.rng import stage_generator
from inference.settings import Request
from inference.sources import fit
from modules.conditions import stage_c_inputs


class AtNoise(NamedTuple):
    """One noise level, for all pictures.

    noised, guessed: [B, C, h, w], what the network saw, and the clean latents that its answer stands for.
    target_error, x0_error, noise_error: [B], mean squared: of what the network was asked for, and of the
    clean latents and the noise that its answer stands for. weight: of the loss here, in the training.
    """

    log_snr: float
    noised: Tensor
    guessed: Tensor
    target_error: Tensor
    x0_error: Tensor
    noise_error: Tensor
    weight: float


@torch.inference_mode()
def at_noise_levels(
    cascade: Cascade,
    prompts: Sequence[str],
    images: Sequence[Image.Image],
    log_snrs: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int = 16,
    **settings: Any,
) -> list[AtNoise]:
    """Noise pictures to each level and ask Stage C once for each, without guidance.

    images: in any size; they are cut to the model's own. log_snrs: where its schedule does not reach one, its
    end is taken. seed: of the first picture's noise, the next ones count up; a picture has the same noise at
    all levels. settings: other fields of Request, such as loras. All is float32, on the cascade's device.
    Raises ValueError, FileNotFoundError.
    """
    if len(prompts) != len(images):
        raise ValueError(f"at_noise_levels: {len(prompts)} prompts for {len(images)} pictures")
    diffusion = gdf.build(cascade.networks.facts("stage_c")["gdf"])
    times = times_of(diffusion.schedule, log_snrs)
    requests = pair_up(list(prompts), range(seed, seed + len(prompts)), settings)
    batches, start, found = cascade.batches(requests, batch_size), 0, []
    for batch in batches:
        found.append(_of_batch(cascade, diffusion, batch, images[start : start + len(batch)], times))
        start += len(batch)
    return [_joined(parts) for parts in zip(*found, strict=True)]


def times_of(schedule: gdf.BaseSchedule, log_snrs: Sequence[float]) -> list[float]:
    """The times at which a schedule has these log-SNRs, to a 10,000th; its ends for what lies beyond them."""
    t = torch.linspace(1, 0, 10_001, dtype=torch.float64)
    places = torch.searchsorted(schedule(t), torch.tensor(log_snrs, dtype=torch.float64))
    return t[places.clamp(max=len(t) - 1)].tolist()


def _of_batch(
    cascade: Cascade,
    diffusion: gdf.GDF,
    batch: Sequence[Request],
    images: Sequence[Image.Image],
    times: Sequence[float],
) -> list[AtNoise]:
    stages, networks = cascade.stages, cascade.networks
    pixels = torch.stack([fit(image, batch[0].size) for image in images])
    latents = stages.compress(pixels, stages.grid_c(batch[0].size))
    generators = [stage_generator(request.seed, "noise_levels") for request in batch]
    noise = gdf.randn(latents.shape, generators, latents.device)
    texts, _ = stages.texts.of("stage_c", batch)
    inputs = stage_c_inputs(texts, None, networks.peek("stage_c").config["c_clip_img"])
    with (
        networks.use("stage_c") as network,
        stages.adapters.on_stage("stage_c", network, batch[0]),
    ):
        return [_at_time(network, diffusion, latents, noise, inputs, time) for time in times]


def _at_time(
    network: nn.Module,
    diffusion: gdf.GDF,
    latents: Tensor,
    noise: Tensor,
    inputs: dict[str, Tensor],
    time: float,
) -> AtNoise:
    diffused = diffusion.diffuse(latents, noise, t=torch.full((len(latents),), time))
    prediction = network(diffused.noised, diffused.noise_cond, **inputs).float()
    x0, epsilon = diffusion.undiffuse(diffused.noised, diffused.logSNR, prediction)
    log_snr, weight = diffused.logSNR[0].item(), diffused.loss_weight[0].item()
    return AtNoise(
        log_snr,
        diffused.noised,
        x0,
        square_error(prediction, diffused.target),
        square_error(x0, latents),
        square_error(epsilon, noise),
        weight,
    )


def square_error(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of each picture; both [B, C, h, w], returns [B]."""
    return (one - other).square().mean(dim=(1, 2, 3))


def _joined(parts: Sequence[AtNoise]) -> AtNoise:
    """The batches' results at one noise level as one."""
    fields: list[Any] = [
        torch.cat(each) if isinstance(each[0], Tensor) else each[0] for each in zip(*parts, strict=True)
    ]
    return AtNoise(*fields)
