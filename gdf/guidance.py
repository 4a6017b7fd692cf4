"""Classifier-free guidance (Ho & Salimans 2022) with rescaling (Lin et al. 2023), on nested model inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gdf.tensors import expand_like

# Times are multiples of 1 / timesteps and rounded; a bound of exactly such a time must count as reached.
_TIME_ROUNDING = 1e-6


@dataclass
class Guidance:
    """prediction = unconditional + cfg (conditional - unconditional), its contrast partly taken back.

    cfg: a number; or (at t = 1, at t = 0), linear in t between; or None for none.
    cfg_t_stop, cfg_t_start: guided are the steps with cfg_t_stop <= t <= cfg_t_start; None for no such bound.
    cfg_rho: share of the guided prediction that is brought back to the standard deviation of the
        conditional one, in [0, 1] (Lin et al. 2023, eq. 16).
    cfg_rescale_whole_batch: one standard deviation for the whole batch, as in the published code, where a
        picture depends on what else is in its batch; otherwise one for each picture.
    """

    cfg: float | Sequence[float] | None = 3.0
    cfg_t_stop: float | None = None
    cfg_t_start: float | None = None
    cfg_rho: float = 0.7
    cfg_rescale_whole_batch: bool = False

    def scale(self, t: float) -> float | None:
        """How strongly to guide at time t, or None where not at all."""
        if self.cfg is None:
            return None
        if self.cfg_t_stop is not None and t < self.cfg_t_stop - _TIME_ROUNDING:
            return None
        if self.cfg_t_start is not None and t > self.cfg_t_start + _TIME_ROUNDING:
            return None
        if isinstance(self.cfg, Sequence):
            noisy, clean = self.cfg
            return noisy * t + clean * (1 - t)
        return self.cfg

    def combine(self, conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
        """The guided prediction [B, ...] from two of the same shape; scale: one, or [B, 1, ...]."""
        guided = unconditional + scale * (conditional - unconditional)
        if self.cfg_rho == 0:
            return guided
        contrast = self._deviation(conditional) / self._deviation(guided).clamp(min=1e-9)
        return guided * (1 + self.cfg_rho * (contrast - 1))

    def _deviation(self, prediction: Tensor) -> Tensor:
        if self.cfg_rescale_whole_batch:
            return prediction.std()
        # One by one: the rounding of a sum over several dimensions depends on the size of the others.
        return expand_like(torch.stack([picture.std() for picture in prediction]), prediction)


def with_unconditional(inputs: Mapping[str, Any], unconditional: Mapping[str, Any] | None) -> dict[str, Any]:
    """Model inputs for a doubled batch: first the conditional half, then the unconditional one.

    Tensors [B, ...] become [2B, ...], also inside lists and dictionaries. The unconditional ones are
    matched by name (in lists by position); those not given are zeros. What is no tensor stays as it is.
    Raises ValueError on a name that only the unconditional inputs have.
    """
    return _paired(dict(inputs), unconditional, "unconditional_inputs")


def _paired(value: Any, other: Any, where: str) -> Any:
    if isinstance(value, Tensor):
        return torch.cat([value, torch.zeros_like(value) if other is None else other.to(value)])
    if isinstance(value, Mapping):
        other = other or {}
        unknown = sorted(set(other) - set(value))
        if unknown:
            raise ValueError(
                f"{where}: {unknown[0]!r} is not among the model inputs ({', '.join(map(str, value))})"
            )
        return {name: _paired(item, other.get(name), f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        others = [*(other or ()), *[None] * (len(value) - len(other or ()))]
        return [_paired(item, others[i], f"{where}[{i}]") for i, item in enumerate(value)]
    return value
