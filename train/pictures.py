"""Pictures of a batch as numbers, and numbers as pictures."""

from torch import Tensor

from dataset_tools.batches import Batch


def pictures(batch: Batch) -> Tensor:
    """The batch's images as float32 [B, 3, H, W] in [0, 1]."""
    return batch["images"].float() / 255


def false_colours(latents: Tensor) -> Tensor:
    """Three of the latents' channels as red, green and blue, spread over [0, 1]: [B, 3, h, w]."""
    channels = latents[:, :3].float()
    low, high = (channels.amin(dim=(2, 3), keepdim=True), channels.amax(dim=(2, 3), keepdim=True))
    return (channels - low) / (high - low).clamp(min=1e-6)


def control_pictures(control: Tensor) -> Tensor:
    """What a ControlNet sees [B, c, h, w] as pictures [B, 3, h, w]; latents in false colours."""
    channels = control.shape[1]
    if channels == 1:
        return control.expand(-1, 3, -1, -1)
    if channels in (3, 4):  # the fourth says where the picture is painted over, which shows
        return control[:, :3]
    return false_colours(control)
