"""Random masks: places of a picture that are to be painted anew, 1, and places that stay, 0."""

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.adapters.pixels import uniform

BLOB_CELLS = 5  # of the coarse noise across a picture that blobs are made of


def inner_mask(height: int, width: int, area: float, generator: torch.Generator) -> Tensor:
    """A rectangle or a few blobs that cover `area` (0 to 1) of a picture; [1, 1, height, width]."""
    if uniform(generator) < 0.5:
        return rectangle(height, width, area, generator)
    return blobs(height, width, area, generator)


def outer_mask(height: int, width: int, area: float, generator: torch.Generator) -> Tensor:
    """All but a rectangle: `area` of the picture is to be painted around it; [1, 1, height, width]."""
    return 1 - rectangle(height, width, 1 - area, generator)


def rectangle(height: int, width: int, area: float, generator: torch.Generator) -> Tensor:
    """A rectangle with random sides and place that covers about `area`; [1, 1, height, width]."""
    # Its share of the height h lies between area and 1, evenly on a logarithmic scale, as does area / h.
    share = area ** uniform(generator)
    rows = min(height, max(1, round(height * share)))
    columns = min(width, max(1, round(width * area / share)))
    top = int(uniform(generator, 0, height - rows + 1))
    left = int(uniform(generator, 0, width - columns + 1))
    mask = torch.zeros(1, 1, height, width)
    mask[..., top : top + rows, left : left + columns] = 1
    return mask


def blobs(height: int, width: int, area: float, generator: torch.Generator) -> Tensor:
    """The highest places of smooth noise, as many as cover `area`; [1, 1, height, width]."""
    noise = torch.rand(1, 1, BLOB_CELLS, BLOB_CELLS, generator=generator)
    field = F.interpolate(noise, (height, width), mode="bicubic", align_corners=False)
    count = min(height * width, max(1, round(area * height * width)))
    mask = torch.zeros(height * width)
    mask[field.flatten().topk(count).indices] = 1
    return mask.view(1, 1, height, width)
