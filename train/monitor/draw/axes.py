"""From numbers to places along an axis, and the marks on it."""

import math
from typing import NamedTuple

import numpy as np

from train.monitor.table import Numbers

NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
FEW_DECADES = 1.5  # below which an axis of powers also has marks between them

Mark = tuple[float, str]
"""A place on an axis, as a share of its length, and the text there."""


class Axis(NamedTuple):
    """low < high; if is_log, both above 0."""

    low: float
    high: float
    is_log: bool = False

    def place(self, values: Numbers) -> Numbers:
        """Shares of the axis' length from its beginning; NaN for what a logarithm does not know."""
        low, high = self.low, self.high
        if self.is_log:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.log(np.where(values > 0, values, math.nan))
            low, high = math.log(low), math.log(high)
        return (values - low) / (high - low)

    def marks(self, count: int = 5) -> list[Mark]:
        """About so many round numbers on the axis: place and text."""
        values = (log_marks if self.is_log else even_marks)(self.low, self.high, count)
        places = self.place(np.array(values, np.float64))
        pairs = zip(places.tolist(), values, strict=True)
        return [(place, short(value)) for place, value in pairs if 0 <= place <= 1]


def fitting(values: Numbers, is_log: bool = False, margin: float = 0.05) -> Axis:
    """The axis that just holds these numbers; a logarithm only where there are any above 0."""
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    if is_log and len(positive):
        low, high = float(positive.min()), float(positive.max())
        room = max((high / low) ** margin, 1.02)
        return Axis(low / room, high * room, True)
    if not len(finite):
        return Axis(0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    room = (high - low) * margin if high > low else abs(high) * 0.1 or 1.0
    return Axis(0.0 if 0 <= low < 0.5 * high else low - room, high + room)


def even_marks(low: float, high: float, count: int) -> list[float]:
    """Round numbers at equal distances within [low, high]."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in NICE if nice * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_marks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten within [low, high], and 2 and 5 times these where they are few."""
    decades = math.log10(high / low)
    if decades < 0.5:
        return [value for value in even_marks(low, high, count) if value > 0]
    factors = (1, 2, 5) if decades < FEW_DECADES else (1,)
    every = max(1, math.ceil(decades / count))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in values if low <= value <= high]


def short(value: float) -> str:
    """A number in few letters: 0.0436, 1.2e-05, 950, 12.5k, 3M."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size and size < 1e-3:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            scale = 1e3 if letter == "k" else limit
            return f"{value / scale:.3g}{letter}".replace("-", "−")
    text = f"{value:.4g}" if size >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def plain(value: float) -> float | None:
    """A number as JSON takes it, in six digits; None for NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
