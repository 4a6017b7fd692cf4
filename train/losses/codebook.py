"""Keeps a vector quantizer's codebook alive: measures which codes are used and moves the dead ones.

A code that no encoder output was nearest to for a whole window gets no gradient and never comes back by
itself. At the end of the window it is put where an encoder output is. Counts and candidates are brought
together over micro-batches and ranks first, in the order of the global batch, and the choice is drawn from
(seed, step): every rank makes the same one, and it does not depend on how the batch was cut.
"""

from typing import Any

import torch
from torch import Tensor

from train.parallel import ranks
from train.parallel.ranks import gather
from train.parallel.shards import assign, full
from train.rng import StepRng, mixed_seed

CANDIDATES_PER_PICTURE = 64


class CodebookCare:
    """window_steps: length of a window; 0 measures without ever moving a code."""

    def __init__(self, size: int, window_steps: int, seed: int) -> None:
        self.size, self.window_steps, self.seed = size, window_steps, seed
        self.counts = torch.zeros(size, dtype=torch.int64)  # uses in the window so far, all ranks
        self.num_revived = 0
        self._pending: list[Tensor] = []  # the same of this step and rank, one per micro-batch
        self._candidates: list[Tensor] = []  # one [B, K, C] per micro-batch

    def observe(
        self, indices: Tensor, vectors: Tensor, rng: StepRng, step: int, num_counted: int | None = None
    ) -> None:
        """Count one micro-batch. indices: [B, h, w]. vectors: [B, C, h, w], what the encoder gave.

        num_counted: of the pictures (None: all).
        """
        uses = indices.new_zeros(self.size)  # unlike bincount, index_add_ does not wait for a GPU
        counted = indices[:num_counted].flatten()
        self._pending.append(uses.index_add_(0, counted, torch.ones_like(counted)))
        if self._window_ends(step):
            rows = vectors.detach().float().flatten(2).transpose(1, 2).cpu()  # [B, h*w, C]
            picks = [torch.randperm(rows.shape[1], generator=generator) for generator in rng.samples]
            chosen = [row[pick[:CANDIDATES_PER_PICTURE]] for row, pick in zip(rows, picks, strict=True)]
            self._candidates.append(torch.stack(chosen)[:num_counted])

    @torch.no_grad()
    def after_step(self, step: int, codebook: Tensor) -> None:
        """Add up the step and, at the end of a window, move the unused codes of `codebook` [size, C]."""
        self.counts += ranks.total(torch.stack(self._pending).sum(dim=0).cpu())
        self._pending.clear()
        if self._window_ends(step):
            self._revive(step, codebook)
            self.counts.zero_()
        self._candidates.clear()

    def metrics(self) -> dict[str, float]:
        """Share of the codes used in the window so far; perplexity: as many codes, used evenly, would do."""
        shares = self.counts[self.counts > 0].double() / max(1, int(self.counts.sum()))
        entropy = -(shares * shares.log()).sum().item()
        return {
            "codebook_used": len(shares) / self.size,
            "codebook_perplexity": float(torch.tensor(entropy).exp()),
            "codebook_revived": float(self.num_revived),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts.clone(), "num_revived": self.num_revived}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["counts"].shape != self.counts.shape:
            raise ValueError(f"codebook of {self.size} codes: the saved counts are of {len(state['counts'])}")
        self.counts.copy_(state["counts"])
        self.num_revived = state["num_revived"]

    def _window_ends(self, step: int) -> bool:
        return self.window_steps > 0 and (step + 1) % self.window_steps == 0

    def _revive(self, step: int, codebook: Tensor) -> None:
        dead = (self.counts == 0).nonzero().flatten()
        # Ranks hold neighbouring rows of every micro-batch; this is the order of the global batch.
        by_rank = gather(self._candidates)
        candidates = torch.cat([rows.flatten(0, 1) for micro in zip(*by_rank, strict=True) for rows in micro])
        candidates = candidates[candidates.isfinite().all(dim=1)]  # else a skipped step would end the run
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, step))
        chosen = torch.randperm(len(candidates), generator=generator)[: len(dead)]
        whole = full(codebook.detach()).clone()
        whole[dead[: len(chosen)]] = candidates[chosen].to(whole)
        assign(codebook, whole)
        self.num_revived += len(chosen)
