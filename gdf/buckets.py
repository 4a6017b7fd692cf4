"""Losses by log-SNR bucket: running means that an adaptive schedule or loss weight is made of."""

from collections.abc import Sequence

import torch
from torch import Tensor


class LossBuckets:
    """bucket_losses [N]: running means of the loss between rising log-SNR edges, bucket_ranges [N - 1].

    The first bucket holds every log-SNR below the first edge, the last every one above the last. The state
    changes only in `apply_statistics`, so that micro-batches and ranks may first be added up:

        statistics = sum of bucket_statistics(logSNR, loss) over micro-batches and ranks
        apply_statistics(statistics)

    Each loss counts as one observation: a bucket with n new losses of mean m goes to
    beta^n old + (1 - beta^n) m.
    """

    def __init__(self, edges: Tensor):
        self.bucket_ranges = edges
        self.bucket_losses = torch.ones(len(edges) + 1, device=edges.device)

    def bucket_index(self, logSNR: Tensor) -> Tensor:
        """The bucket of each log-SNR [...]."""
        return torch.searchsorted(self.bucket_ranges.to(logSNR), logSNR.contiguous())

    def bucket_statistics(self, logSNR: Tensor, loss: Tensor) -> Tensor:
        """[2, N]: the sum and the number of the finite losses in each bucket; logSNR, loss: [B]."""
        loss = loss.detach().float()
        finite = loss.isfinite()
        observations = torch.stack([loss.where(finite, 0.0), finite.float()])  # [2, B]
        statistics = observations.new_zeros(2, len(self.bucket_losses))
        return statistics.index_add(1, self.bucket_index(logSNR.detach().float()), observations)

    def apply_statistics(self, statistics: Tensor, beta: float = 0.99) -> None:
        """Move the running means by the observations of `bucket_statistics`, or a sum of several."""
        sums, counts = statistics.to(self.bucket_losses)
        keep = beta**counts
        self.bucket_losses = keep * self.bucket_losses + (1 - keep) * sums / counts.clamp(min=1)

    def update_buckets(self, logSNR: Tensor, loss: Tensor, beta: float = 0.99) -> None:
        """Both in one, for a single process and a whole batch."""
        self.apply_statistics(self.bucket_statistics(logSNR, loss), beta)

    def state_dict(self) -> dict[str, Tensor]:
        return {"losses": self.bucket_losses.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError when the state has another number of buckets."""
        losses = state["losses"]
        if losses.shape != self.bucket_losses.shape:
            raise ValueError(
                f"loss buckets: {len(self.bucket_losses)} here, {len(losses)} in the stored state"
            )
        self.bucket_losses = losses.to(self.bucket_losses, copy=True)


def even_edges(logsnr_range: Sequence[float], count: int) -> Tensor:
    """`count` evenly spaced log-SNRs from end to end, float32 on the CPU."""
    return torch.linspace(logsnr_range[0], logsnr_range[1], count, device="cpu")
