"""How far pictures are from what they should be, pixel by pixel."""

import torch.nn.functional as F
from torch import Tensor


def pixel_loss(reconstruction: Tensor, images: Tensor, l1: float, l2: float) -> Tensor:
    """Weighted sum of mean absolute and mean squared difference; a scalar."""
    loss = reconstruction.new_zeros(())
    if l1:
        loss = loss + l1 * F.l1_loss(reconstruction, images)
    if l2:
        loss = loss + l2 * F.mse_loss(reconstruction, images)
    return loss
