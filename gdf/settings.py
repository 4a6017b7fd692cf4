"""How a diffusion is sampled: one vocabulary for configs, the headers of weights, and pictures."""

from dataclasses import dataclass
from typing import Any

from gdf.names import nearest
from gdf.samplers import SAMPLERS

MOST_STEPS, MOST_SHIFT, MOST_GUIDANCE = 10_000, 1000.0, 1000.0


@dataclass(frozen=True)
class SamplingSettings:
    """Raises ValueError, which begins with the name, for a value that is impossible.

    steps: network evaluations (Heun: twice as many). guidance: 1 is none; a pair runs from the first value at
    t = 1 to the second at t = 0. shift: of the log-SNR, > 1 spends more steps in the noise. sampler: one of
    SAMPLERS. rescale: share (0 to 1) by which the guided prediction takes the spread of the conditional one
    (Lin et al. 2023, section 3.4).
    """

    steps: int = 20
    guidance: float | tuple[float, float] = 4.0
    shift: float = 1.0
    sampler: str = "ddpm"
    rescale: float = 0.7

    def __post_init__(self) -> None:
        if isinstance(self.guidance, list):  # JSON and YAML know no tuples
            object.__setattr__(self, "guidance", tuple(self.guidance))
        if isinstance(self.guidance, tuple) and len(self.guidance) != 2:
            raise ValueError(f"guidance: expected a number or a pair of numbers, found {list(self.guidance)}")
        if self.steps < 1:
            raise ValueError(f"steps: expected at least 1, found {self.steps}")
        if not self.shift > 0:
            raise ValueError(f"shift: expected a number above 0, found {self.shift}")
        if self.steps > MOST_STEPS or self.shift > MOST_SHIFT:
            name = "steps" if self.steps > MOST_STEPS else "shift"
            most = {"steps": MOST_STEPS, "shift": MOST_SHIFT}[name]
            raise ValueError(f"{name}: expected at most {most:g}, found {getattr(self, name)}")
        ends = self.guidance if isinstance(self.guidance, tuple) else (self.guidance,)
        if not all(abs(each) <= MOST_GUIDANCE for each in ends):
            raise ValueError(f"guidance: expected at most {MOST_GUIDANCE:g}, found {self.guidance}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale: expected a number from 0 to 1, found {self.rescale}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler: found {self.sampler!r}; {nearest(self.sampler, SAMPLERS)}")

    @property
    def guided(self) -> bool:
        """Whether the unconditional prediction is needed at all."""
        return self.guidance not in (1, (1, 1))

    def keywords(self) -> dict[str, Any]:
        """These settings as keywords of `GDF.sample`."""
        return {
            "sampler": SAMPLERS[self.sampler](),
            "timesteps": self.steps,
            "cfg": self.guidance if self.guided else None,
            "cfg_rho": self.rescale,
            "shift": self.shift,
        }
