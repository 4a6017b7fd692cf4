"""How long a wish will still take, from how long steps took before."""

import time
from collections.abc import Mapping


class Timing:
    """Seconds for one step and pixel, by stage, of the latest wish that was drawn."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def start(self, steps: Mapping[str, int], pixels: int) -> "Clock":
        """Begin to count. steps: of each stage, in order. pixels: of all pictures of the wish."""
        return Clock(self, dict(steps), pixels)


class Clock:
    """One wish. share: how much of its work is done, 0 to 1, by time as far as that is known."""

    def __init__(self, timing: Timing, steps: dict[str, int], pixels: int) -> None:
        self.timing, self.steps, self.pixels = timing, steps, pixels
        self.share = 0.0
        self._stage = ""
        self._began = self._last = time.monotonic()

    def step(self, stage: str, step: int, steps: int) -> float | None:
        """A step is done; returns the seconds left, None while a stage is to come that was never timed."""
        self.steps[stage] = steps
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, self._last
        self._last = now
        self.timing.seconds[stage] = (now - self._began) / step / self.pixels
        names = list(self.steps)
        left = {name: self.steps[name] for name in names[names.index(stage) :]} | {stage: steps - step}
        known = self.timing.seconds
        mean = sum(known.values()) / len(known)
        total = sum(known.get(name, mean) * number for name, number in self.steps.items())
        to_do = sum(known.get(name, mean) * number for name, number in left.items())
        self.share = 1 - to_do / total if total else 1.0
        return to_do * self.pixels if left.keys() <= known.keys() else None
