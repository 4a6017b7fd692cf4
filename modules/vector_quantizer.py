"""The vector quantizer of Stage A: nearest codes, their losses, and the care of codes that nothing uses."""

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
        # How often each code was used; no part of the weights, a recipe keeps it with its own state.
        self.register_buffer("usage", torch.zeros(codebook_size, dtype=torch.int64), persistent=False)

    def reset_parameters(self) -> None:
        bound = 1 / self.codebook.num_embeddings
        nn.init.uniform_(self.codebook.weight, -bound, bound)
        nn.init.zeros_(self.usage)

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

    def count(self, indices: Tensor) -> Tensor:
        """How often each code occurs in `indices`: [codebook_size], int64."""
        return torch.bincount(indices.flatten(), minlength=self.codebook.num_embeddings)

    @torch.no_grad()
    def revive_dead_codes(self, latents: Tensor, generator: torch.Generator | None = None) -> int:
        """Move the codes whose `usage` is 0 onto latents drawn at random, and count from 0 again.

        latents: [N, C] or [B, C, H, W], not divided by the scale factor. Returns the number of moved codes.
        The draw runs on the generator's device. Moved codes lie exactly on their latents.
        """
        if latents.ndim == 4:
            latents = latents.permute(0, 2, 3, 1).flatten(0, 2)
        dead = (self.usage == 0).nonzero().flatten()
        device = generator.device if generator is not None else torch.device("cpu")
        if len(dead) <= len(latents):
            drawn = torch.randperm(len(latents), generator=generator, device=device)[: len(dead)]
        else:
            drawn = torch.randint(len(latents), (len(dead),), generator=generator, device=device)
        rows = latents[drawn.to(latents.device)].to(self.codebook.weight)
        self.codebook.weight[dead] = rows
        self.usage.zero_()
        return len(dead)
