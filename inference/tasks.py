"""The tasks: how pictures are made of prompts and pictures, each a chain of stages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from inference.masks import masks_at, put_back
from inference.originals import originals
from inference.progress import OnStep
from inference.sampling import Start
from inference.settings import Request, one_of
from inference.sizes import Size, near_area, same_area
from inference.stages import Stages

ENLARGED = 2  # by super-resolution
Make = Callable[[Stages, Sequence[Request], OnStep], Tensor]


@dataclass(frozen=True)
class Task:
    """A way to make pictures.

    make: draws a batch, [B, 3, H, W], 0 to 1. networks: what it needs. takes_…: what of a request it starts
    from. size: of the picture, without margins, made of the size of the one it starts from and the side of
    the squares that Stage C was trained with. strength: the noise level at which it starts unless told
    otherwise.
    """

    make: Make
    networks: tuple[str, ...]
    takes_image: bool = False
    takes_mask: bool = False
    takes_margins: bool = False
    size: Callable[[Size, int], Size] = same_area
    strength: float | None = None


def unchanged(size: Size, side_px: int) -> Size:
    """The picture's own size."""
    return size


def enlarged(size: Size, side_px: int) -> Size:
    """The size that super-resolution makes of the picture's."""
    return Size(ENLARGED * size.height, ENLARGED * size.width)


def text_to_image(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """Stage C draws latents for the prompt, B and A decode them."""
    return _decode(stages, batch, stages.sample_c(batch, on_step), on_step)


def image_variation(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """As text to image, with the CLIP embedding of a picture as a further condition."""
    source = originals(batch)
    latents = stages.sample_c(batch, on_step, images=source.images, source=source)
    return _decode(stages, batch, latents, on_step)


def image_to_image(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """As text to image, beginning from the noised latents of a picture instead of pure noise."""
    source = originals(batch)
    start = Start(stages.compress(source.images, stages.grid_c(batch[0].size)))
    return _decode(stages, batch, stages.sample_c(batch, on_step, start=start, source=source), on_step)


def inpaint(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """Draw the masked part of a picture anew; the latents of the rest are kept, and so are its pixels.

    For outpaint the masked part is what was added to the picture.
    """
    source = originals(batch)
    assert source.masks is not None  # the task takes masks or margins
    grid = stages.grid_c(batch[0].size)
    start = Start(stages.compress(source.images, grid), masks_at(source.masks, grid).to(stages.device))
    drawn = _decode(stages, batch, stages.sample_c(batch, on_step, start=start, source=source), on_step)
    return put_back(drawn, source.images, source.masks, batch[0].edge_px) if batch[0].keep else drawn


def reconstruct(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """A picture's compressor latents, decoded by B and A: what the latents keep of it."""
    latents = stages.compress(originals(batch).images, stages.grid_b(batch[0].size))
    return _decode(stages, batch, latents, on_step)


def enlarge(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """Stage B draws a picture larger than the one whose compressor latents it is given.

    They are no finer than the small picture is, where Stage B was trained on latents of shrunk pictures too;
    otherwise they are those of the enlarged picture.
    """
    small = Size(*(max(1, side // ENLARGED) for side in batch[0].size))
    grid = stages.grid_b(batch[0].size, 1 / ENLARGED)
    return _decode(stages, batch, stages.compress(originals(batch, small).images, grid), on_step)


def enlarge_with_control(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """Stage C draws the larger picture, led by ControlNets that look at the small one."""
    latents = stages.sample_c(batch, on_step, source=originals(batch))
    return _decode(stages, batch, latents, on_step)


def preview(stages: Stages, batch: Sequence[Request], on_step: OnStep) -> Tensor:
    """Stage C's latents through the previewer: a small picture, at a fraction of the time."""
    return stages.preview(stages.sample_c(batch, on_step))


def _decode(stages: Stages, batch: Sequence[Request], latents: Tensor, on_step: OnStep) -> Tensor:
    return stages.decode(stages.sample_b(batch, latents, on_step), batch[0].size)


CASCADE = ("stage_c", "stage_b", "stage_a")
DECODER = ("semantic_compressor", "stage_b", "stage_a")
TASKS = {
    "text_to_image": Task(text_to_image, CASCADE),
    "image_variation": Task(image_variation, ("image_encoder", *CASCADE), takes_image=True),
    "image_to_image": Task(image_to_image, ("semantic_compressor", *CASCADE), takes_image=True, strength=0.6),
    "inpaint": Task(
        inpaint,
        ("semantic_compressor", *CASCADE),
        takes_image=True,
        takes_mask=True,
        size=near_area,
        strength=1.0,
    ),
    "outpaint": Task(
        inpaint,
        ("semantic_compressor", *CASCADE),
        takes_image=True,
        takes_margins=True,
        size=near_area,
        strength=1.0,
    ),
    "super_resolution": Task(enlarge, DECODER, takes_image=True, size=enlarged),
    "reconstruct": Task(reconstruct, DECODER, takes_image=True, size=unchanged),
    "preview": Task(preview, ("stage_c", "previewer")),
}
LED_ENLARGEMENT = Task(enlarge_with_control, CASCADE, takes_image=True, size=enlarged)


def task_of(request: Request) -> Task:
    """What a request asks for; ValueError names the nearest task there is."""
    one_of(request.task, TASKS, "task")
    return LED_ENLARGEMENT if request.task == "super_resolution" and request.controls else TASKS[request.task]
