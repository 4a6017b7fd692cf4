"""Schedules: which log-SNR belongs to which time, t = 1 being the noisiest and t = 0 the cleanest."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gdf.noise import Randomness, rand
from gdf.tables import interpolate, stable_diffusion_table
from gdf.tensors import at_least_float32


@dataclass(kw_only=True)
class BaseSchedule(ABC):
    """log-SNR = ln(signal variance / noise variance) as a falling function of t in [0, 1].

    shift: the schedule of a picture of `shift` times the side, whose pixels share more of their noise:
        log-SNR is lowered by 2 ln(shift) (Hoogeboom et al. 2023, "simple diffusion").
    force_limits: keep every log-SNR within `limits` = (log-SNR at t = 1, at t = 0).
    limits_follow_shift: a shift given at the call moves the limits too. The published code leaves them
        where they are, which cuts the shifted schedule off at one end; False gives that.
    discrete_steps: t is rounded to k / (discrete_steps - 1); integer times are taken as k. Draws are not
        rounded.
    """

    shift: float = 1.0
    force_limits: bool = True
    limits_follow_shift: bool = True
    discrete_steps: int | None = None
    limits: tuple[float, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.reset_limits(disable=not self.force_limits)

    @abstractmethod
    def schedule(self, t: Tensor) -> Tensor:
        """log-SNR, without shift and limits, for t [...] in [0, 1]; float32 or float64."""

    def draw(self, batch_size: int, generators: Randomness | None, device: torch.device | str) -> Tensor:
        """Random log-SNRs [batch_size] for training, without shift and limits."""
        return self.schedule(1 - rand([batch_size], generators, device))

    def reset_limits(self, shift: float = 1.0, disable: bool = False) -> None:
        """Set `limits` to the schedule's ends under `shift`, or to none."""
        self.limits = None
        if not disable:
            noisiest, cleanest = self(
                torch.tensor([1.0, 0.0], device="cpu", dtype=torch.float64), shift
            ).tolist()
            self.limits = (noisiest, cleanest)

    def __call__(
        self,
        t: Tensor | int,
        shift: float = 1.0,
        *,
        generators: Randomness | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """log-SNR at the times t [...] (any outside [0, 1] count as its ends), or for training t = batch
        size.

        Returns float32, or float64 for such times: [...] on t's device, or [t] random values on `device`.
        """
        drawn = self.draw(t, generators, device) if isinstance(t, int) else self.schedule(self._times(t))
        logSNR = drawn - 2 * math.log(self.shift * shift)
        if self.limits is None:
            return logSNR
        moved = -2 * math.log(shift) if self.limits_follow_shift else 0.0
        return logSNR.clamp(self.limits[0] + moved, self.limits[1] + moved)

    def _times(self, t: Tensor) -> Tensor:
        if not t.is_floating_point():
            if self.discrete_steps is None:
                raise ValueError(f"{type(self).__name__}: whole-number times need discrete_steps")
            return (t.to(torch.float32) / (self.discrete_steps - 1)).clamp(0, 1)
        t = at_least_float32(t).clamp(0, 1)
        if self.discrete_steps is None:
            return t
        return (t * (self.discrete_steps - 1)).round() / (self.discrete_steps - 1)


def bounded_log_snr(
    signal: Tensor, noise: Tensor, clamp_range: Sequence[float], norm_instead: bool
) -> Tensor:
    """log-SNR of signal and noise variances that add up to 1; taking both, neither is lost to rounding.

    clamp_range: least and most signal variance; what lies outside is cut off, or, with norm_instead, [0,
    1] is squeezed into the range.
    """
    low, high = clamp_range
    if norm_instead:
        # A signal variance just below 0 (Sqrt near t = 1) must not end in the logarithm of a negative number.
        least = torch.finfo(signal.dtype).eps
        signal = (signal * (high - low) + low).clamp(min=least)
        noise = (noise * (high - low) + (1 - high)).clamp(min=least)
    else:
        signal, noise = signal.clamp(low, high), noise.clamp(1 - high, 1 - low)
    return signal.log() - noise.log()


@dataclass
class CosineSchedule(BaseSchedule):
    """Signal variance cos²(π/2 (t + s) / (1 + s)), divided by its value at t = 0 (Nichol & Dhariwal 2021)."""

    s: float = 0.008
    clamp_range: Sequence[float] = (0.0001, 0.9999)
    norm_instead: bool = False

    def schedule(self, t: Tensor) -> Tensor:
        # With u = π/2 (t + s) / (1 + s) and u0 = u(0): cos u = sin(π/2 - u), and
        # cos² u0 - cos² u = sin(u - u0) sin(u + u0), so that nothing is lost to rounding near t = 0 and t
        # = 1.
        unit = math.pi / 2 / (1 + self.s)
        power = math.cos(unit * self.s) ** 2
        signal = torch.sin(unit * (1 - t)) ** 2 / power
        noise = torch.sin(unit * t) * torch.sin(unit * (t + 2 * self.s)) / power
        return bounded_log_snr(signal, noise, self.clamp_range, self.norm_instead)

    def draw(self, batch_size: int, generators: Randomness | None, device: torch.device | str) -> Tensor:
        # As the released models were trained: every time a thousandth noisier than a uniform one.
        return self.schedule((1 - rand([batch_size], generators, device) + 0.001).clamp(max=1))


@dataclass
class Cosine2Schedule(BaseSchedule):
    """log-SNR = -2 ln tan(angle), the angle being linear in t (Hoogeboom et al. 2023)."""

    logsnr_range: Sequence[float] = (-15, 15)

    def schedule(self, t: Tensor) -> Tensor:
        most, least = (math.atan(math.exp(-0.5 * end)) for end in self.logsnr_range)
        return -2 * (least + t * (most - least)).tan().log()


@dataclass
class SqrtSchedule(BaseSchedule):
    """Signal variance 1 - sqrt(t + s) (Li et al. 2022, "Diffusion-LM")."""

    s: float = 0.0001
    clamp_range: Sequence[float] = (0.0001, 0.9999)
    norm_instead: bool = False

    def schedule(self, t: Tensor) -> Tensor:
        noise = (t + self.s).sqrt()
        return bounded_log_snr(1 - noise, noise, self.clamp_range, self.norm_instead)


@dataclass
class RectifiedFlowsSchedule(BaseSchedule):
    """log-SNR = 2 ln((1 - t) / t), as of the straight path (1 - t) x0 + t noise (Liu et al. 2022)."""

    logsnr_range: Sequence[float] = (-15, 15)

    def schedule(self, t: Tensor) -> Tensor:
        return (2 * ((1 - t).log() - t.log())).clamp(*self.logsnr_range)


@dataclass
class EDMSampleSchedule(BaseSchedule):
    """log-SNR = -2 ln sigma, the p-th root of sigma being linear in t (Karras et al. 2022, eq. 5)."""

    sigma_range: Sequence[float] = (0.002, 80)
    p: float = 7

    def schedule(self, t: Tensor) -> Tensor:
        least, most = (sigma ** (1 / self.p) for sigma in self.sigma_range)
        return -2 * self.p * (least + t * (most - least)).log()


@dataclass
class LinearSchedule(BaseSchedule):
    """log-SNR is linear in t."""

    logsnr_range: Sequence[float] = (-10, 10)

    def schedule(self, t: Tensor) -> Tensor:
        least, most = self.logsnr_range
        return most - t * (most - least)


@dataclass
class PiecewiseLinearSchedule(BaseSchedule):
    """Signal variance y, interpolated linearly between the given times x (rising, from 0 to 1)."""

    x: Sequence[float]
    y: Sequence[float]

    def schedule(self, t: Tensor) -> Tensor:
        return interpolate(t, t.new_tensor(self.x), t.new_tensor(self.y)).logit()


@dataclass
class StableDiffusionSchedule(BaseSchedule):
    """The schedule of latent diffusion (Rombach et al. 2022), whose `total_steps` are joined by straight
    lines.

    linear_range: the first and last beta; their roots are evenly spaced.
    """

    linear_range: Sequence[float] = (0.00085, 0.012)
    total_steps: int = 1000

    def schedule(self, t: Tensor) -> Tensor:
        times, variances = stable_diffusion_table(self.linear_range, self.total_steps)
        return interpolate(t, times.to(t), variances.to(t)).logit()


@dataclass
class InterpolatedSchedule(BaseSchedule):
    """t scheduler1(t) + (1 - t) scheduler2(t), each under its own shift."""

    scheduler1: BaseSchedule
    scheduler2: BaseSchedule
    shifts: Sequence[float] = (1.0, 1.0)

    def schedule(self, t: Tensor) -> Tensor:
        noisy, clean = self.scheduler1(t, self.shifts[0]), self.scheduler2(t, self.shifts[1])
        return torch.lerp(clean, noisy, t)
