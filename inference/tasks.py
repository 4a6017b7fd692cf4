"""The tasks: how pictures are made of prompts and pictures, each a chain of stages."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdf import RELEASED_SAMPLING
from inference.progress import OnStep
from inference.settings import Request, StageSettings, one_of
from inference.sizes import Size, picture_size, same_area
from inference.sources import fit, open_source, source_size
from inference.stages import Stages


class Task(NamedTuple):
    """make: draws a batch, [B, 3, H, W], 0 to 1. networks: what it needs. takes_image: starts from one."""

    make: Callable[[Stages, Sequence[Request], OnStep], Tensor]
    networks: tuple[str, ...]
    takes_image: bool = False


def text_to_image(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """Stage C draws latents for the prompt, B and A decode them."""
    return _decode(stages, batch, stages.sample_c(batch, on_step), on_step)


def image_variation(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """As text to image, with the CLIP embedding of a picture as a further condition."""
    latents = stages.sample_c(batch, on_step, images=_images(batch))
    return _decode(stages, batch, latents, on_step)


def image_to_image(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """As text to image, beginning from the noised latents of a picture instead of pure noise."""
    start = stages.compress(_images(batch), stages.grid_c(batch[0].size))
    return _decode(stages, batch, stages.sample_c(batch, on_step, start=start), on_step)


def reconstruct(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """A picture's compressor latents, decoded by B and A: what the latents keep of it."""
    latents = stages.compress(_images(batch), stages.grid_b(batch[0].size))
    return _decode(stages, batch, latents, on_step)


def preview(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """Stage C's latents through the previewer: a small picture, at a fraction of the time."""
    return stages.preview(stages.sample_c(batch, on_step))


def _decode(stages: Stages, batch: Sequence[Request], latents: Tensor, on_step: OnStep) -> Tensor:
    return stages.decode(stages.sample_b(batch, latents, on_step), batch[0].size)


def _images(batch: Sequence[Request]) -> Tensor:
    return torch.stack([fit(open_source(request.image or ""), request.size) for request in batch])


TASKS = {
    "text_to_image": Task(text_to_image, ("stage_c", "stage_b", "stage_a")),
    "image_variation": Task(
        image_variation, ("image_encoder", "stage_c", "stage_b", "stage_a"), takes_image=True
    ),
    "image_to_image": Task(
        image_to_image, ("semantic_compressor", "stage_c", "stage_b", "stage_a"), takes_image=True
    ),
    "reconstruct": Task(reconstruct, ("semantic_compressor", "stage_b", "stage_a"), takes_image=True),
    "preview": Task(preview, ("stage_c", "previewer")),
}
RELEASED_SIZE_PX = 1024


def prepare(stages: Stages, request: Request) -> Request:
    """Fill in what a request leaves open, after checking that it can be carried out.

    The size is the one asked for; else the model's own, in the proportions of the picture that is handed in;
    for a reconstruction, that picture's. Stages that take part get all their settings. Raises
    ValueError, FileNotFoundError.
    """
    one_of(request.task, TASKS, "task")
    task = TASKS[request.task]
    if task.takes_image != (request.image is not None):
        needs = "a picture; set image=<path>" if task.takes_image else "no picture; leave image out"
        raise ValueError(f"image: the task {request.task} takes {needs}")
    stages.networks.check(task.networks)
    size = _natural_size(stages, request)
    size = picture_size(request.height_px, request.width_px, size)
    return replace(request, height_px=size.height, width_px=size.width, **_settings(stages, request))


def _settings(stages: Stages, request: Request) -> dict[str, Any]:
    """Whole settings of the stages that draw something."""
    drawing = [name for name in TASKS[request.task].networks if name in RELEASED_SAMPLING]
    sampling = {stage: stages.networks.sampling(stage, getattr(request, stage)) for stage in drawing}
    return {stage: StageSettings(**asdict(settings)) for stage, settings in sampling.items()}


def _natural_size(stages: Stages, request: Request) -> Size:
    original = None if request.image is None else source_size(open_source(request.image))
    if original is not None and request.task == "reconstruct":
        return original
    side_px = stages.networks.facts("stage_c").get("image_size_px", RELEASED_SIZE_PX)
    return Size(side_px, side_px) if original is None else same_area(original, side_px)
