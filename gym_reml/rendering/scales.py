"""Axes: positions of values on them, and their ticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Values are clipped to this magnitude, at which ranges and differences do not overflow.
HUGE = 1e30
# Losses below this, such as 0 for a perfect fit, are drawn at it on log axes.
TINY = 1e-8
# Goals of navigation have coordinates of at most 0.5.
_LEAST_REACH = 0.7


@dataclass(frozen=True)
class Scale:
    """An axis: maps values between ``low`` and ``high`` to [0, 1].

    Attributes:
        low: Value at 0.
        high: Value at 1, above ``low``.
        log: Whether the axis is logarithmic; then ``low`` is positive.
    """

    low: float
    high: float
    log: bool = False

    def fraction(self, values: ArrayLike) -> NDArray[np.float64]:
        """Positions of values: float64 of the same shape, outside [0, 1] beyond the ends, NaN where not finite."""
        array, low, high = tamed(values), self.low, self.high
        if self.log:
            array, low, high = np.log10(np.maximum(array, min(TINY, low))), np.log10(low), np.log10(high)
        return np.asarray((array - low) / (high - low), dtype=np.float64)

    def ticks(self, count: int = 5) -> list[float]:
        """About ``count`` round values on the axis; on long log axes powers of ten."""
        if self.log:
            first, last = int(np.ceil(np.log10(self.low) - 1e-9)), int(np.floor(np.log10(self.high) + 1e-9))
            if last - first <= 1:
                powers = [multiple * 10.0**power for power in range(first - 1, last + 1) for multiple in (1, 2, 5)]
                return [tick for tick in powers if self.low * 0.999 <= tick <= self.high * 1.001]
            every = max(1, -(-(last - first) // count))
            return [float(10.0**power) for power in range(first, last + 1, every)]
        rough = (self.high - self.low) / count
        unit = 10.0 ** np.floor(np.log10(rough))
        gap = unit * next(multiple for multiple in (1, 2, 5, 10) if multiple * unit >= rough * 0.999)
        steps = np.arange(np.ceil(self.low / gap - 1e-9), np.floor(self.high / gap + 1e-9) + 1)
        # Adding 0.0 turns -0.0 into 0.0.
        return [float(step * gap) + 0.0 for step in steps]


def tamed(values: ArrayLike) -> NDArray[np.float64]:
    """Values as float64, NaN where not finite, and clipped to ``HUGE``."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), np.clip(array, -HUGE, HUGE), np.nan)


def number(value: float) -> str:
    """A value as text of at most ten characters."""
    if not np.isfinite(value):
        return "not finite"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e5 else f"{value:.3g}"


def range_scale(values: ArrayLike, margin: float) -> Scale:
    """A linear axis for the finite ones of ``values``, with margins of this fraction of their range."""
    array = tamed(values).ravel()
    array = array[np.isfinite(array)]
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 1.0)
    # Constant values need a range too, wide enough not to be lost in rounding.
    span = high - low if high - low > 1e-9 * max(1.0, abs(high)) else 2.0 * max(1.0, abs(high))
    middle, half = (low + high) / 2, span * (0.5 + margin)
    return Scale(middle - half, middle + half)


def plane_reach(points: ArrayLike) -> float:
    """The largest coordinate on the axes of a plane around (0, 0): a round number, so that it seldom changes.

    Args:
        points: (..., 2) float, that are to lie within; those that are not finite are ignored.
    """
    places = np.abs(tamed(points))
    farthest = float(np.max(places, initial=_LEAST_REACH, where=np.isfinite(places)))
    unit = 10.0 ** np.floor(np.log10(farthest))
    return float(next(unit * multiple for multiple in (1, 1.5, 2, 3, 5, 7, 10) if unit * multiple >= farthest * 0.999))


def window(values: Sequence[float], most: int) -> tuple[int, Sequence[float]]:
    """The number of values that are left out, and the last ``most`` of ``values``."""
    left_out = max(0, len(values) - most)
    return left_out, values[left_out:]
