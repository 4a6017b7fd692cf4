"""The sampling loop: from noise, step by step, to a picture."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from gdf.guidance import Guidance, with_unconditional
from gdf.names import nearest
from gdf.samplers import BaseSampler, Estimate, Step

if TYPE_CHECKING:
    from gdf.diffusion import GDF

_GUIDANCE = ("cfg", "cfg_t_stop", "cfg_t_start", "cfg_rho")
_RUNNING = ("x", "model_inputs", "unconditional_inputs", "sampler", "sampler_params")


class Sampled(NamedTuple):
    """One step's results, all [B, ...]: the estimate of x0, x after the step, and the (guided) prediction."""

    x0: Tensor
    x: Tensor
    pred: Tensor


def step_times(t_start: float, t_end: float, timesteps: int, dtype: torch.dtype) -> Tensor:
    """Evenly spaced times [timesteps + 1], on the CPU. Raises ValueError unless they fall within [0, 1]."""
    if timesteps < 1 or not 0 <= t_end < t_start <= 1:
        wanted = "timesteps >= 1 and 0 <= t_end < t_start <= 1"
        raise ValueError(f"sample: needs {wanted}, got {timesteps=}, {t_start=}, {t_end=}")
    return torch.linspace(t_start, t_end, timesteps + 1, device="cpu", dtype=dtype)


@dataclass
class SamplingRun:
    """One trajectory and the values that the caller may change while it runs."""

    gdf: GDF
    model: Callable[..., Tensor]
    model_inputs: Mapping[str, Any]
    unconditional_inputs: Mapping[str, Any] | None
    x: Tensor  # [B, ...]
    times: Sequence[float]
    logSNR: Tensor  # [steps + 1, 1]: one for all pictures, so that none of them depends on their number
    sampler: BaseSampler
    sampler_params: Mapping[str, Any]
    guidance: Guidance
    randn: Callable[[], Tensor]
    dtype: torch.dtype
    _doubled: dict[str, Any] | None = field(default=None, init=False)

    @torch.no_grad()
    def steps(self) -> Generator[Sampled, Mapping[str, Any] | None, None]:
        """Yield every step's results and take what the caller sends back into the next."""
        previous = None
        for index in range(len(self.times) - 1):
            now, pred = self.estimate(self.x, index)
            step = Step(
                now=now,
                next_logSNR=self.logSNR[index + 1],
                previous=previous,
                is_last=self.times[index + 1] == 0,
                scaler=self.gdf.input_scaler,
                randn=self.randn,
                estimate_next=partial(self.estimate_x0, index=index + 1),
            )
            self.x = self.active_sampler().step(step)
            previous = now
            changes = yield Sampled(now.x0, self.x, pred)
            self.change(changes or {})

    def active_sampler(self) -> BaseSampler:
        """The sampler with the options of sampler_params in place of its own."""
        options = [option.name for option in fields(self.sampler)]
        unknown = sorted(set(self.sampler_params) - set(options))
        if unknown:
            has = ", ".join(options) or "no options"
            raise ValueError(f"sampler_params: no {unknown[0]!r} in {type(self.sampler).__name__} ({has})")
        return replace(self.sampler, **self.sampler_params)

    def estimate_x0(self, x: Tensor, index: int) -> Estimate:
        """What the model says of x at the log-SNR of the given step."""
        return self.estimate(x, index)[0]

    def estimate(self, x: Tensor, index: int) -> tuple[Estimate, Tensor]:
        """The same, and the (guided) prediction itself."""
        logSNR = self.logSNR[index]
        noise_cond = self.gdf.noise_cond(logSNR).expand(x.shape[0])
        pred = self.predict(x.to(self.dtype), noise_cond, self.times[index]).to(x)
        return Estimate(logSNR, *self.gdf.undiffuse(x, logSNR, pred)), pred

    def predict(self, x: Tensor, noise_cond: Tensor, t: float) -> Tensor:
        scale = self.guidance.scale(t)
        if scale is None:
            return self.model(x, noise_cond, **self.model_inputs)
        if self._doubled is None:
            self._doubled = with_unconditional(self.model_inputs, self.unconditional_inputs)
        both = self.model(torch.cat([x, x]), torch.cat([noise_cond, noise_cond]), **self._doubled)
        conditional, unconditional = both.to(torch.promote_types(both.dtype, torch.float32)).chunk(2)
        return self.guidance.combine(conditional, unconditional, scale)

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set running values. Raises ValueError on a name that is none of them."""
        for name, value in changes.items():
            if name in _GUIDANCE:
                setattr(self.guidance, name, value)
            elif name in _RUNNING:
                setattr(self, name, value)
            else:
                hint = nearest(name, _GUIDANCE + _RUNNING)
                raise ValueError(f"sample: {name!r} cannot be sent between steps; {hint}")
        if "model_inputs" in changes or "unconditional_inputs" in changes:
            self._doubled = None
