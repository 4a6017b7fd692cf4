"""Consistency distillation: a student that goes in one step from anywhere on its teacher's path to the end.

The probability flow of a diffusion network, the teacher, leads every noisy x at time t to one clean picture
f(x, t). It is the only function that is constant along every path and has f(x, 0) = x (Song et al. 2023,
definition 1 and theorem 1). The student learns it from pairs of points that one step of the teacher joins;
guidance, being part of the teacher's path, becomes part of f (Luo et al. 2023, section 4).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import gdf
from gdf.guidance import with_unconditional
from gdf.tensors import expand_like
from train.networks import evaluating
from train.rng import StepRng


class Span(NamedTuple):
    """The times [B] of a teacher's step, from the noisier to the cleaner."""

    start: Tensor
    end: Tensor


class Distillation:
    """What the student is taught.

    diffusion: of teacher and student. teacher: how the teacher's path is solved: its number of steps from
    pure noise, each of DDIM, and its guidance, shift and rescale. num_times: the times that are learnt are
    n / num_times, n = 1 …; a multiple of the teacher's steps, so that these begin at such times. huber: size
    of a pixel's error, in deviations of the latents, above which the distance grows no longer quadratically.
    """

    def __init__(
        self, diffusion: gdf.GDF, teacher: gdf.SamplingSettings, num_times: int, huber: float
    ) -> None:
        self.diffusion, self.settings, self.num_times, self.huber = diffusion, teacher, num_times, huber
        self.guidance = gdf.Guidance(cfg_rho=teacher.rescale)

    def loss(
        self,
        student: nn.Module,
        teacher: nn.Module,
        latents: Tensor,
        conditions: Mapping[str, Any],
        unconditional: Mapping[str, Any],
        rng: StepRng,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """How far the student's answers at both ends of a teacher's step are from each other.

        The answer at the cleaner end is the target, without dropout and without a gradient: of the student
        itself, for a moving average of it only slows the learning down (Song & Dhariwal 2023, section 3.2).
        latents: [B, C, H, W] clean. conditions, unconditional: keywords of the networks' forward; the latter
        for guidance. noise: [B, C, H, W], in place of white noise. Returns the mean loss, and each picture's
        distance [B] (root mean square, detached).
        """
        span = self.draw_span(rng, latents.device)
        noised = self.diffusion.diffuse(
            latents, noise, span.start, shift=self.settings.shift, generators=rng.samples
        ).noised
        with torch.no_grad(), evaluating(student):
            reached = self.follow(teacher, noised, span, conditions, unconditional)
            target = self.answer(student, reached, span.end, conditions)
        difference = self.answer(student, noised, span.start, conditions) - target
        square = difference.square().mean(dim=(1, 2, 3))  # [B]
        return pseudo_huber(square, self.huber).mean(), square.detach().sqrt()

    def draw_span(self, rng: StepRng, device: torch.device) -> Span:
        """A step of the teacher for each picture, beginning at any of the times; the last ones end at 0.

        The paper draws no beginnings within the last step, and so takes answers there for targets that were
        never learnt; here they are learnt too.
        """
        draw = gdf.rand([len(rng.samples)], rng.samples, device)
        number = (draw * self.num_times).floor() + 1  # 1 … num_times
        skipped = self.num_times // self.settings.steps
        return Span(number / self.num_times, (number - skipped).clamp(min=0) / self.num_times)

    @torch.no_grad()
    def follow(
        self,
        teacher: nn.Module,
        x: Tensor,
        span: Span,
        conditions: Mapping[str, Any],
        unconditional: Mapping[str, Any],
    ) -> Tensor:
        """Where the teacher's guided DDIM step over `span` leads from x [B, C, H, W].

        As in sampling, what a step to t = 0 ends at is the estimate of the clean picture.
        """
        log_snr = self._log_snr(span.start)
        prediction = self._guided(teacher, x, span.start, log_snr, conditions, unconditional)
        clean, noise = self.diffusion.undiffuse(x, log_snr, prediction)
        a, b = (expand_like(s, x) for s in self.diffusion.input_scaler(self._log_snr(span.end)))
        return torch.where(expand_like(span.end, x) == 0, clean, a * clean + b * noise)

    def answer(self, student: nn.Module, x: Tensor, t: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        """The student's f(x, t) [B, C, H, W]: x itself at t = 0 (Song et al. 2023, eq. 4).

        Elsewhere it is the network's estimate of the clean picture, so that what learns and what samples
        read the network alike.
        """
        log_snr = self._log_snr(t)
        prediction = student(x, self.diffusion.noise_cond(log_snr), **conditions).float()
        clean, _ = self.diffusion.undiffuse(x, log_snr, prediction)
        return torch.where(expand_like(t, x) == 0, x, clean)

    def _log_snr(self, t: Tensor) -> Tensor:
        return self.diffusion.schedule(t, self.settings.shift)

    def _guided(
        self,
        teacher: nn.Module,
        x: Tensor,
        t: Tensor,
        log_snr: Tensor,
        conditions: Mapping[str, Any],
        unconditional: Mapping[str, Any],
    ) -> Tensor:
        noise_cond = self.diffusion.noise_cond(log_snr)
        if not self.settings.guided:
            return teacher(x, noise_cond, **conditions).float()
        doubled = with_unconditional(conditions, unconditional)
        both = teacher(torch.cat([x, x]), torch.cat([noise_cond, noise_cond]), **doubled)
        prediction, unguided = both.float().chunk(2)
        return self.guidance.combine(prediction, unguided, self._scale(expand_like(t, x)))

    def _scale(self, t: Tensor) -> float | Tensor:
        if isinstance(self.settings.guidance, tuple):
            noisy, clean = self.settings.guidance
            return noisy * t + clean * (1 - t)
        return self.settings.guidance


def pseudo_huber(square: Tensor, scale: float) -> Tensor:
    """sqrt(square + scale²) - scale of mean squares [B]: a root mean square, rounded off near 0.

    Song & Dhariwal 2023, section 3.3, per dimension; they find a scale of 0.00054.
    """
    return square / ((square + scale**2).sqrt() + scale)  # loses no digits where square is small
