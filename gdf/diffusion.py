"""GDF: a diffusion process put together from a schedule, scaler, target, noise condition and loss weight."""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdf.buckets import LossBuckets
from gdf.guidance import Guidance
from gdf.loss_weights import BaseLossWeight, ComposedLossWeight
from gdf.noise import Randomness, offset_noise, randn
from gdf.noise_conditions import BaseNoiseCond
from gdf.samplers import BaseSampler, DDPMSampler
from gdf.sampling import Sampled, SamplingRun, step_times
from gdf.scalers import BaseScaler
from gdf.schedules import BaseSchedule
from gdf.targets import BaseTarget
from gdf.tensors import expand_like


class Diffused(NamedTuple):
    """A noised batch: the first three [B, ...] in x0's dtype, the others [B] in float32 or float64."""

    noised: Tensor
    noise: Tensor
    target: Tensor
    logSNR: Tensor
    noise_cond: Tensor
    loss_weight: Tensor


class GDF:
    """x = a x0 + b noise, with a and b given by log-SNR: noising for training, and sampling.

    offset_noise: how much noise that is constant over each channel is added to the noise in training.
    """

    def __init__(
        self,
        schedule: BaseSchedule,
        input_scaler: BaseScaler,
        target: BaseTarget,
        noise_cond: BaseNoiseCond,
        loss_weight: BaseLossWeight,
        offset_noise: float = 0.0,
    ):
        self.schedule = schedule
        self.input_scaler = input_scaler
        self.target = target
        self.noise_cond = noise_cond
        self.loss_weight = loss_weight
        self.offset_noise = offset_noise

    def setup_limits(
        self, stretch_max: bool = True, stretch_min: bool = True, shift: float = 1.0
    ) -> tuple[float, float, float, float]:
        """Stretch the scaler to the schedule's ends; see BaseScaler.setup_limits."""
        return self.input_scaler.setup_limits(self.schedule, stretch_max, stretch_min, shift)

    def adaptive_parts(self) -> dict[str, LossBuckets]:
        """The parts that learn from the losses, by name; their state belongs into a checkpoint."""
        parts: dict[str, object] = {"schedule": self.schedule, "loss_weight": self.loss_weight}
        if isinstance(self.loss_weight, ComposedLossWeight):
            parts |= {f"loss_weight.{i}": part for i, part in enumerate(self.loss_weight.parts())}
        return {name: part for name, part in parts.items() if isinstance(part, LossBuckets)}

    def diffuse(
        self,
        x0: Tensor,
        epsilon: Tensor | None = None,
        t: Tensor | None = None,
        shift: float = 1.0,
        loss_shift: float = 1.0,
        offset: Tensor | None = None,
        *,
        generators: Randomness | None = None,
    ) -> Diffused:
        """Noise a batch for training.

        x0: [B, ...]. epsilon: the noise [B, ...], and t: the times [B], are drawn where not given, and so is
            offset [B, C, 1, ...] if offset_noise is not 0; generators: needed for what is drawn.
        shift: of the schedule. loss_shift: of the loss weight.
        Raises ValueError without the generators that are needed.
        """
        times = x0.shape[0] if t is None else t.to(x0.device)
        logSNR = self.schedule(times, shift, generators=generators, device=x0.device)
        logSNR = logSNR.to(torch.promote_types(logSNR.dtype, x0.dtype))
        if epsilon is None:
            epsilon = randn(x0.shape, generators, x0.device, x0.dtype)
        if self.offset_noise > 0:
            if offset is None:
                offset = offset_noise(x0.shape, generators, x0.device, x0.dtype)
            epsilon = epsilon + offset * self.offset_noise
        a, b = (expand_like(value, x0) for value in self.input_scaler(logSNR))
        return Diffused(
            noised=(a * x0 + b * epsilon).to(x0.dtype),
            noise=epsilon,
            target=self.target(x0, epsilon, expand_like(logSNR, x0), a, b).to(x0.dtype),
            logSNR=logSNR,
            noise_cond=self.noise_cond(logSNR),
            loss_weight=self.loss_weight(logSNR, shift=loss_shift),
        )

    def undiffuse(self, x: Tensor, logSNR: Tensor, pred: Tensor) -> tuple[Tensor, Tensor]:
        """(x0, noise), both [B, ...], that the prediction [B, ...] implies for x [B, ...] at logSNR [B]."""
        logSNR = expand_like(logSNR, x)
        a, b = self.input_scaler(logSNR)
        return self.target.x0(x, pred, logSNR, a, b), self.target.epsilon(x, pred, logSNR, a, b)

    def sample(
        self,
        model: Callable[..., Tensor],
        model_inputs: Mapping[str, Any],
        shape: Sequence[int],
        *,
        generators: Randomness | None = None,
        unconditional_inputs: Mapping[str, Any] | None = None,
        sampler: BaseSampler | None = None,
        schedule: BaseSchedule | None = None,
        t_start: float = 1.0,
        t_end: float = 0.0,
        timesteps: int = 20,
        x_init: Tensor | None = None,
        cfg: float | Sequence[float] | None = 3.0,
        cfg_t_stop: float | None = None,
        cfg_t_start: float | None = None,
        cfg_rho: float = 0.7,
        cfg_rescale_whole_batch: bool = False,
        sampler_params: Mapping[str, Any] | None = None,
        shift: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Generator[Sampled, Mapping[str, Any] | None, None]:
        """Sample, yielding (x0, x, pred) after each of `timesteps` steps; the last x0 is the picture.

        model: called as model(x, noise_cond, **model_inputs) with (nested) tensors [B, ...]; with guidance
            on a doubled batch, whose second half gets unconditional_inputs (what is missing there: zeros).
        shape: [B, ...]; x_init [B, ...], if given, takes its place: latents already noised to t_start.
        generators: draw the first noise and the sampler's; one for each picture keeps it free of its batch.
        sampler: DDPMSampler() if None; sampler_params: options that replace the sampler's own.
        schedule: in place of the one trained with. shift: of that schedule.
        t_start, t_end: from the noisier time to the cleaner, in [0, 1]. cfg...: see Guidance.
        dtype: of the model's x; the trajectory itself is kept in float32, or in float64 if dtype is that.

        `send({...})` instead of `next()` changes x, model_inputs, unconditional_inputs, sampler,
        sampler_params, cfg, cfg_t_stop, cfg_t_start or cfg_rho. Raises ValueError on impossible arguments.
        """
        state_dtype = torch.promote_types(dtype, torch.float32)
        times = step_times(t_start, t_end, timesteps, state_dtype)
        draw = partial(randn, generators=generators, device=device, dtype=state_dtype)
        x = draw(shape) if x_init is None else x_init.to(device, state_dtype)
        return SamplingRun(
            gdf=self,
            model=model,
            model_inputs=model_inputs,
            unconditional_inputs=unconditional_inputs,
            x=x,
            times=times.tolist(),
            logSNR=(schedule or self.schedule)(times, shift)[:, None].to(device),
            sampler=sampler or DDPMSampler(),
            sampler_params=sampler_params or {},
            guidance=Guidance(cfg, cfg_t_stop, cfg_t_start, cfg_rho, cfg_rescale_whole_batch),
            randn=partial(draw, x.shape),
            dtype=dtype,
        ).steps()
