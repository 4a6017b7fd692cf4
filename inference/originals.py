"""The pictures that requests start from, with what is to be drawn anew of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image

from inference.masks import fit_mask, open_mask, widened
from inference.settings import Request
from inference.sizes import Size
from inference.sources import Source, fit, open_source, source_size


class Original(NamedTuple):
    """A picture as it is read, and its mask if it has one; with margins where they are asked for."""

    image: Image.Image
    mask: Image.Image | None = None


def original(request: Request) -> Original:
    """The picture of a request, which has one. Raises what open_source and open_mask raise."""
    image = open_source(request.image or "")
    if request.margins:
        return Original(*widened(image, request.margins))
    if request.mask is not None:
        return Original(image, open_mask(request.mask, source_size(image)))
    return Original(image)


def originals(batch: Sequence[Request], size: Size | None = None) -> Source:
    """The pictures of a batch, in the size that is asked for unless another is given."""
    read = [original(request) for request in batch]
    size = size or batch[0].size
    images = torch.stack([fit(item.image, size) for item in read])
    masks = [fit_mask(item.mask, size) for item in read if item.mask is not None]
    return Source(images, torch.stack(masks) if masks else None)
