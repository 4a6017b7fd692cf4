"""What a ControlNet is to see of a picture, as a picture."""

import torch
from PIL import Image

from inference.originals import originals
from inference.pipeline import Cascade
from inference.settings import Request
from inference.tasks import task_of
from modules.pictures import to_image


@torch.inference_mode()
def control_seen(cascade: Cascade, request: Request) -> Image.Image:
    """The control of a request's first ControlNet; of many channels their mean. Raises as Cascade does."""
    [[prepared]] = cascade.batches([request], 1)
    stages = cascade.stages
    source = originals([prepared]) if task_of(prepared).takes_image else None
    control = stages.adapters.controls.control(0, prepared, stages.grid_c(prepared.size), source)[0]
    if control.shape[0] in (3, 4):
        return to_image(control[:3])
    flat = control.mean(0, keepdim=True).float()
    if control.shape[0] > 1:
        flat = (flat - flat.min()) / (flat.max() - flat.min()).clamp(min=1e-6)
    return to_image(flat.expand(3, -1, -1))
