"""What the diffusion recipes share: the loss with its statistics, and the latents of a sample sheet.

A recipe owns one `DiffusionObjective`. Whatever its losses move (the adaptive loss weight's buckets, the
reported loss by log-SNR) is collected during a step and applied in `after_step`, summed over ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import gdf
from train import ranks
from train.losses import diffusion_loss
from train.rng import StepRng
from train.schema import bounded

# Edges of the log-SNR intervals over which the loss is reported, and the middles that name them.
REPORT_EDGES, REPORT_CENTRES = (-6.0, -2.0, 2.0, 6.0), (-8, -4, 0, 4, 8)


@dataclass
class SamplingSettings:
    """How sample sheets are drawn. cfg: guidance. shift: of the schedule; 2 spends more steps in noise."""

    timesteps: int = bounded(20, 1)
    cfg: float = 4.0
    shift: float = bounded(1.0, 1e-3)
    sampler: str = "DDPMSampler"

    def __post_init__(self) -> None:
        gdf.build_sampler({"name": self.sampler})  # raises for a name that is none


class Sheet(NamedTuple):
    """Latents [B, C, H, W] of a sample sheet's rows; `sampled` begins with noise alone."""

    noised: Tensor
    predicted: Tensor
    sampled: Tensor


class DiffusionObjective:
    """The diffusion that one recipe trains. spec: plain data for `gdf.build`."""

    def __init__(self, spec: Mapping[str, Any], sampling: SamplingSettings) -> None:
        self.spec, self.sampling = dict(spec), sampling
        self.diffusion = gdf.build(self.spec)
        self.reported = gdf.LossBuckets(torch.tensor(REPORT_EDGES))
        self._collected: list[
            tuple[Tensor, Tensor]
        ] = []  # log-SNR and loss of this step's pictures, this rank

    def loss(
        self,
        network: nn.Module,
        latents: Tensor,
        conditions: Mapping[str, Tensor],
        rng: StepRng,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The recipe's loss and metrics of one micro-batch; arguments as of `losses.diffusion_loss`."""
        result = diffusion_loss(network, self.diffusion, latents, conditions, rng, noise=noise)
        self._collected.append((result.diffused.logSNR.float().cpu(), result.per_picture.cpu()))
        spread = latents.detach().std()  # should be near 1: schedules are made for it
        return result.loss, {
            "loss_unweighted": result.per_picture.mean(),
            "latents_std": spread,
            **self._report(),
        }

    def after_step(self) -> None:
        """Take in the losses of the step's pictures on all ranks."""
        log_snr, losses = (torch.cat(parts) for parts in zip(*self._collected, strict=True))
        self._collected.clear()
        for buckets in self._buckets().values():
            buckets.apply_statistics(ranks.total(buckets.bucket_statistics(log_snr, losses)))

    @torch.no_grad()
    def sheet(
        self,
        network: nn.Module,
        latents: Tensor,
        conditions: Mapping[str, Tensor],
        unconditional: Mapping[str, Tensor],
        rng: StepRng,
        noise: Tensor | None = None,
    ) -> Sheet:
        """The rows of a sample sheet: noised to random times, denoised in one step, drawn from noise."""
        result = diffusion_loss(network, self.diffusion, latents, conditions, rng, noise=noise)
        noised = result.diffused.noised
        predicted, _ = self.diffusion.undiffuse(noised, result.diffused.logSNR, result.prediction)
        sampled = draw(network, self.diffusion, conditions, unconditional, latents.shape, rng, self.sampling)
        return Sheet(noised, predicted, sampled)

    def state_dict(self) -> dict[str, Any]:
        return {name: buckets.state_dict() for name, buckets in self._buckets().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        buckets = self._buckets()
        if state.keys() != buckets.keys():
            raise ValueError(
                f"gdf: the saved state is of {', '.join(state)}, this run's of {', '.join(buckets)}"
            )
        for name, entry in buckets.items():
            entry.load_state_dict(state[name])

    def _buckets(self) -> dict[str, gdf.LossBuckets]:
        """All running means of losses by log-SNR: the reported one, and what the diffusion adapts to."""
        return {"reported": self.reported, **self.diffusion.adaptive_parts()}

    def _report(self) -> dict[str, float | Tensor]:
        """Unweighted loss by log-SNR: a running mean over all ranks, the same on each."""
        losses = self.reported.bucket_losses
        return {
            f"loss_log_snr_{centre:+d}": loss for centre, loss in zip(REPORT_CENTRES, losses, strict=True)
        }


@torch.no_grad()
def draw(
    network: nn.Module,
    diffusion: gdf.GDF,
    conditions: Mapping[str, Tensor],
    unconditional: Mapping[str, Tensor],
    shape: Sequence[int],
    rng: StepRng,
    settings: SamplingSettings,
) -> Tensor:
    """Sample latents of `shape` [B, C, H, W] from noise, with the step's generators; float32."""
    steps = diffusion.sample(
        network,
        dict(conditions),
        tuple(shape),
        generators=rng.samples,
        unconditional_inputs=dict(unconditional),
        sampler=gdf.build_sampler({"name": settings.sampler}),
        timesteps=settings.timesteps,
        cfg=settings.cfg,
        shift=settings.shift,
        device=next(iter(conditions.values())).device,
    )
    *_, (latents, _, _) = steps
    return latents.float()
