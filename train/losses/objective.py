"""What the diffusion recipes share: the loss with its statistics, and the latents of a sample sheet.

A recipe owns one `DiffusionObjective`. Whatever its losses move (the adaptive loss weight's buckets, the
reported loss by log-SNR) is collected during a step and applied in `after_step`, summed over ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import gdf
from train.losses.diffusion import diffusion_loss
from train.parallel import ranks
from train.rng import StepRng

# Edges of the log-SNR intervals over which the loss is reported, and the middles that name them.
REPORT_EDGES, REPORT_CENTRES = (-6.0, -2.0, 2.0, 6.0), (-8, -4, 0, 4, 8)
REPORT_DECAY = 0.98  # per step: reported are means over about the last 50 steps


class Sheet(NamedTuple):
    """Latents [B, C, H, W] of a sample sheet's rows; `sampled` begins with noise alone."""

    noised: Tensor
    predicted: Tensor
    sampled: Tensor


class DiffusionObjective:
    """The diffusion that one recipe trains. spec: plain data for `gdf.build`. sampling: of sample sheets."""

    def __init__(self, spec: Mapping[str, Any], sampling: gdf.SamplingSettings) -> None:
        self.spec, self.sampling = dict(spec), sampling
        self.diffusion = gdf.build(self.spec)
        self._intervals = gdf.LossBuckets(torch.tensor(REPORT_EDGES))
        self._reported = torch.zeros(2, len(REPORT_CENTRES))  # decaying sum and number of losses
        self._collected: list[
            tuple[Tensor, Tensor]
        ] = []  # log-SNR and loss of this step's pictures, this rank

    def facts(self) -> dict[str, Any]:
        """For the header of the weights: the diffusion, and how it is best sampled."""
        return {"gdf": self.spec, "sampling": asdict(self.sampling)}

    def loss(
        self,
        network: nn.Module,
        latents: Tensor,
        conditions: Mapping[str, Tensor],
        rng: StepRng,
        noise: Tensor | None = None,
        num_counted: int | None = None,
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The recipe's loss and metrics of one micro-batch; arguments as of `diffusion_loss`.

        num_counted: of how many pictures the statistics take note (None: of all).
        """
        result = diffusion_loss(network, self.diffusion, latents, conditions, rng, noise=noise)
        log_snr = result.diffused.logSNR.float()
        self._collected.append((log_snr[:num_counted], result.per_picture[:num_counted]))
        spread = latents.detach().std()  # should be near 1: schedules are made for it
        return result.loss, {
            "loss_unweighted": result.per_picture.mean(),
            "latents_std": spread,
            **self._report(),
        }

    def after_step(self) -> None:
        """Take in the losses of the step's pictures on all ranks."""
        # Only here, for within the step a GPU need not be waited for.
        log_snr, losses = (torch.cat(parts).cpu() for parts in zip(*self._collected, strict=True))
        self._collected.clear()
        for part in self.diffusion.adaptive_parts().values():
            part.apply_statistics(ranks.total(part.bucket_statistics(log_snr, losses)))
        self._reported *= REPORT_DECAY
        self._reported += ranks.total(self._intervals.bucket_statistics(log_snr, losses))

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
        parts = {name: part.state_dict() for name, part in self.diffusion.adaptive_parts().items()}
        return {"adaptive": parts, "reported": self._reported.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        parts, saved = self.diffusion.adaptive_parts(), state["adaptive"]
        if saved.keys() != parts.keys():
            raise ValueError(
                f"gdf: what adapts was {list(saved)} when the state was saved, now {list(parts)}"
            )
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        self._reported.copy_(state["reported"])

    def _report(self) -> dict[str, float | Tensor]:
        """Unweighted loss by log-SNR, the same on all ranks; NaN where there was none yet."""
        means = self._reported[0] / self._reported[1]
        return {f"loss_log_snr_{centre:+d}": mean for centre, mean in zip(REPORT_CENTRES, means, strict=True)}


@torch.no_grad()
def draw(
    network: nn.Module,
    diffusion: gdf.GDF,
    conditions: Mapping[str, Tensor],
    unconditional: Mapping[str, Tensor],
    shape: Sequence[int],
    rng: StepRng,
    settings: gdf.SamplingSettings,
) -> Tensor:
    """Sample latents of `shape` [B, C, H, W] from noise, with the step's generators; float32."""
    steps = diffusion.sample(
        network,
        dict(conditions),
        tuple(shape),
        generators=rng.samples,
        unconditional_inputs=dict(unconditional),
        device=next(iter(conditions.values())).device,
        **settings.keywords(),
    )
    *_, (latents, _, _) = steps
    return latents.float()
