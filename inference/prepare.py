"""Filling in what a request leaves open, after checking that it can be carried out."""

from dataclasses import asdict, replace
from typing import Any

from gdf import RELEASED_SAMPLING
from inference.originals import original
from inference.settings import Request, StageSettings
from inference.sizes import Size, picture_size
from inference.sources import source_size
from inference.stages import Stages
from inference.tasks import TASKS, Task, task_of

RELEASED_SIZE_PX = 1024


def prepare(stages: Stages, request: Request) -> Request:
    """Fill in what a request leaves open: its size, its strength and all settings of stages that take part.

    Raises ValueError or FileNotFoundError for a request that cannot be carried out.
    """
    task = task_of(request)
    check_pictures(request, task)
    stages.networks.check(task.networks)
    stages.adapters.check(request, task.networks)
    size = picture_size(request.height_px, request.width_px, natural_size(stages, request, task))
    strength = task.strength if request.strength is None else request.strength
    settings = stage_settings(stages, request, task)
    return replace(request, height_px=size.height, width_px=size.width, strength=strength, **settings)


def check_pictures(request: Request, task: Task) -> None:
    """Raise ValueError unless the request has the pictures that its task takes, and no others, nor says how
    much of one to keep where the task cannot."""
    for name, thing, example, takes, given in (
        ("image", "a picture", "image=<path>", task.takes_image, request.image is not None),
        ("mask", "a mask", "mask=<path>", task.takes_mask, request.mask is not None),
        ("margins", "margins", "margins.right_px=<pixels>", task.takes_margins, bool(request.margins)),
    ):
        if takes != given:
            without = f"no {thing.removeprefix('a ')}; leave {name} out"
            needs = f"{thing}; set {example}" if takes else without
            raise ValueError(f"{name}: the task {request.task} takes {needs}")
    if request.strength is not None and task.strength is None:
        takers = ", ".join(name for name, each in TASKS.items() if each.strength is not None)
        raise ValueError(
            f"strength: the task {request.task} takes none (only {takers} do); leave strength out"
        )


def stage_settings(stages: Stages, request: Request, task: Task) -> dict[str, Any]:
    """Whole settings of the stages that draw something."""
    drawing = [name for name in task.networks if name in RELEASED_SAMPLING]
    sampling = {stage: stages.networks.sampling(stage, getattr(request, stage)) for stage in drawing}
    return {stage: StageSettings(**asdict(settings)) for stage, settings in sampling.items()}


def natural_size(stages: Stages, request: Request, task: Task) -> Size:
    """The size where none is asked for: the model's own, or what the task makes of its picture's.

    Margins come on top, scaled as the picture is: Stage C knows things in the size that they have in pictures
    of its own size.
    """
    facts = stages.networks.facts("stage_c") if "stage_c" in task.networks else {}
    side_px = facts.get("image_size_px", RELEASED_SIZE_PX)
    if not task.takes_image:
        return Size(side_px, side_px)
    canvas, margins = source_size(original(request).image), request.margins
    own = Size(
        canvas.height - margins.top_px - margins.bottom_px, canvas.width - margins.left_px - margins.right_px
    )
    size = task.size(own, side_px)
    return Size(round(canvas.height * size.height / own.height), round(canvas.width * size.width / own.width))
