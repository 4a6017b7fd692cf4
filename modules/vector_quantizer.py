"""The vector quantizer of Stage A: nearest codes and the losses that draw both together."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_DISTANCES = 2**24  # distances held in memory at a time (64 MiB)


class Quantized(NamedTuple):
    """codes: [B, C, H, W], gradients pass straight through. indices: [B, H, W]. The losses are means."""

    codes: Tensor
    indices: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


class VectorQuantizer(nn.Module):
    """Replace each latent pixel by its nearest code (van den Oord et al. 2017, eq. 1-3)."""

    def __init__(self, c_latent: int, codebook_size: int) -> None:
        super().__init__()
        self.codebook = nn.Embedding(codebook_size, c_latent)

    def reset_parameters(self) -> None:
        bound = 1 / self.codebook.num_embeddings
        nn.init.uniform_(self.codebook.weight, -bound, bound)

    def forward(self, latents: Tensor) -> Quantized:
        """latents: [B, C, H, W]."""
        indices = self.nearest(latents)
        codes = self.lookup(indices)
        latents = latents.to(codes.dtype)
        codebook_loss = F.mse_loss(codes, latents.detach())
        commitment_loss = F.mse_loss(latents, codes.detach())
        return Quantized(latents + (codes - latents).detach(), indices, codebook_loss, commitment_loss)

    def lookup(self, indices: Tensor) -> Tensor:
        """Indices [B, H, W] -> codes [B, C, H, W]."""
        return self.codebook(indices).permute(0, 3, 1, 2)

    @torch.no_grad()
    def nearest(self, latents: Tensor) -> Tensor:
        """Latents [B, C, H, W] -> indices [B, H, W] of the nearest codes, found in float32."""
        batch, c, height, width = latents.shape
        with torch.autocast(latents.device.type, enabled=False):
            rows = latents.detach().permute(0, 2, 3, 1).reshape(-1, c).float()
            codes = self.codebook.weight.detach().float()
            # |x - e|^2 without |x|^2, which is the same for every code.
            norms = codes.square().sum(dim=1)
            chunks = rows.split(max(1, MAX_DISTANCES // len(codes)))
            found = [torch.addmm(norms, chunk, codes.t(), alpha=-2).argmin(dim=1) for chunk in chunks]
        return torch.cat(found).view(batch, height, width)
