"""Pictures of a batch as numbers, and numbers as pictures."""

from torch import Tensor

from dataset_tools.batches import Batch


def pictures(batch: Batch) -> Tensor:
    """The batch's images as float32 [B, 3, H, W] in [0, 1]."""
    return batch["images"].float() / 255


def num_counted(batch: Batch) -> int:
    """How many of the batch's rows are read for the first time: none of a borrowed batch (see train.feed)."""
    return len(batch["captions"]) if batch.get("share", 1.0) else 0


def false_colours(latents: Tensor) -> Tensor:
    """Three of the latents' channels as red, green and blue, spread over [0, 1]: [B, 3, h, w]."""
    channels = latents[:, :3].float()
    low, high = (channels.amin(dim=(2, 3), keepdim=True), channels.amax(dim=(2, 3), keepdim=True))
    return (channels - low) / (high - low).clamp(min=1e-6)


def control_pictures(control: Tensor) -> Tensor:
    """What a ControlNet sees, [B, c, h, w] in [0, 1], as pictures [B, 3, h, w]: its first one or three."""
    return control[:, :3] if control.shape[1] >= 3 else control[:, :1].expand(-1, 3, -1, -1)
