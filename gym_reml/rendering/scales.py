"""Axes: where on them values lie, and which ticks they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Far beyond anything worth reading, and small enough that ranges and differences of it do not overflow.
HUGE = 1e30
# A perfect fit has loss 0, which has no place on a log axis: it is drawn at this floor.
TINY = 1e-8
# Goals of navigation lie within .5 of the start, on each axis.
_LEAST_REACH = 0.7


@dataclass(frozen=True)
class Scale:
    """An axis: where in [0, 1] a value lies between ``low`` and ``high``.

    Attributes:
        low: Value at 0.
        high: Value at 1, above ``low``.
        log: Whether the axis is logarithmic; then ``low`` is positive.
    """

    low: float
    high: float
    log: bool = False

    def fraction(self, values: ArrayLike) -> NDArray[np.float64]:
        """Place values on the axis: float64 of the same shape, outside [0, 1] beyond the ends, NaN where not finite."""
        array, low, high = tamed(values), self.low, self.high
        if self.log:
            array, low, high = np.log10(np.maximum(array, min(TINY, low))), np.log10(low), np.log10(high)
        return np.asarray((array - low) / (high - low), dtype=np.float64)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values on the axis, about ``count`` of them; on a long log axis whole powers of ten."""
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
        # Adding 0.0 turns the minus zero of a rounded tick into zero.
        return [float(step * gap) + 0.0 for step in steps]


def tamed(values: ArrayLike) -> NDArray[np.float64]:
    """Values as float64 with NaN for everything that is not finite and the huge brought within ``HUGE``."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), np.clip(array, -HUGE, HUGE), np.nan)


def number(value: float) -> str:
    """A value in words of at most ten characters."""
    if not np.isfinite(value):
        return "not finite"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e5 else f"{value:.3g}"


def range_scale(values: ArrayLike, margin: float) -> Scale:
    """The linear axis that holds the finite ones of ``values`` and a share of ``margin`` on both sides."""
    array = tamed(values).ravel()
    array = array[np.isfinite(array)]
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 1.0)
    # A constant function needs an axis too, wide enough for the difference to survive rounding.
    span = high - low if high - low > 1e-9 * max(1.0, abs(high)) else 2.0 * max(1.0, abs(high))
    middle, half = (low + high) / 2, span * (0.5 + margin)
    return Scale(middle - half, middle + half)


def plane_reach(points: ArrayLike) -> float:
    """How far the axes of a plane reach to all sides of (0, 0): a round number, so that it seldom changes.

    Args:
        points: (..., 2) float, what is to lie within; what is not finite lies nowhere.
    """
    places = np.abs(tamed(points))
    farthest = float(np.max(places, initial=_LEAST_REACH, where=np.isfinite(places)))
    unit = 10.0 ** np.floor(np.log10(farthest))
    return float(next(unit * multiple for multiple in (1, 1.5, 2, 3, 5, 7, 10) if unit * multiple >= farthest * 0.999))


def window(values: Sequence[float], most: int) -> tuple[int, Sequence[float]]:
    """The last ``most`` of ``values``, and how many were left out before them."""
    left_out = max(0, len(values) - most)
    return left_out, values[left_out:]
