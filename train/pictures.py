"""Pictures of a batch as numbers, and numbers as pictures."""

import torch.nn.functional as F
from torch import Tensor

from dataset_tools.batches import Batch


def pictures(batch: Batch) -> Tensor:
    """The batch's images as float32 [B, 3, H, W] in [0, 1]."""
    return batch["images"].float() / 255


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Smoothly resized pictures [B, 3, height, width] in [0, 1]."""
    if tuple(images.shape[2:]) == (height, width):
        return images
    return F.interpolate(images.float(), (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def psnr(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Mean over the pictures of the peak signal-to-noise ratio in dB; both [B, 3, H, W] with peak 1."""
    error = (reconstruction - images).square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
    return (-10 * error.log10()).mean()


def false_colours(latents: Tensor) -> Tensor:
    """Three of the latents' channels as red, green and blue, spread over [0, 1]: [B, 3, h, w]."""
    channels = latents[:, :3].float()
    low, high = (channels.amin(dim=(2, 3), keepdim=True), channels.amax(dim=(2, 3), keepdim=True))
    return (channels - low) / (high - low).clamp(min=1e-6)
