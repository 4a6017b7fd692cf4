"""Between pictures and compressor latents, for whoever wants to look at latents or change them."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from inference.pipeline import Cascade
from inference.progress import ignore
from inference.settings import Request
from inference.sizes import Size
from inference.sources import fit, source_size


def pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures as a tensor [B, 3, H, W], 0 to 1; the others are cut to the size of the first."""
    size = source_size(pictures[0])
    return torch.stack([fit(picture.convert("RGB"), size) for picture in pictures])


@torch.no_grad()
def encode(cascade: Cascade, images: Tensor, scale: float = 1.0) -> Tensor:
    """The compressor's latents [B, 16, h, w] of pictures [B, 3, H, W], on the grid that Stage B learned with.

    scale: a smaller one shrinks the grid, as far as Stage B has seen such.
    """
    size = Size(*images.shape[2:])
    return cascade.stages.compress(images, cascade.stages.grid_b(size, scale))


@torch.no_grad()
def decode(
    cascade: Cascade,
    latents: Tensor,
    size_px: Sequence[int],
    seeds: int | Sequence[int] = 0,
    prompt: str = "",
) -> Tensor:
    """Pictures [B, 3, H, W], 0 to 1, that Stage B and Stage A make of compressor latents [B, 16, h, w].

    size_px: height and width. seeds: one for all pictures, so that they differ by their latents alone, or one
    for each.
    """
    height, width = size_px
    numbers = [seeds] * len(latents) if isinstance(seeds, int) else list(seeds)
    batch = [Request(prompt=prompt, seed=seed, height_px=height, width_px=width) for seed in numbers]
    stages = cascade.stages
    drawn = stages.sample_b(batch, latents.to(stages.device), ignore)
    return stages.decode(drawn, Size(height, width)).clamp(0, 1).cpu()
