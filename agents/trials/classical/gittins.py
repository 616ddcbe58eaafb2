"""Gittins indices of a Bernoulli arm under its uniform prior, computed by dynamic programming."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CHARGES = 512
"""Charges per pull at which stopping is weighed; indices are interpolated between them."""
TAIL = 4.0
"""How far beyond the last state looked up the problem is unrolled, in units of 1 / (1 - discount)."""


@lru_cache(maxsize=8)
def gittins_indices(pulls: int, discount: float) -> NDArray[np.float64]:
    """The index of an arm after some successes and failures, its mean having the prior Beta(1, 1).

    The index is the charge per pull at which playing the arm, with the right to stop at any time, has value zero
    (J. C. Gittins, "Bandit processes and dynamic allocation indices", JRSS B 41, 1979). The optimal stopping problem
    is solved backwards for a grid of charges at once; where it is cut off, `TAIL` discount times past the last state,
    the arm's mean is taken as known from there on.

    Args:
        pulls: the largest number of successes and failures together that will be looked up.
        discount: per pull, in (0, 1).

    Returns:
        (pulls + 1, pulls + 1), by successes and failures; nan where they are more than `pulls` together. The array is
        shared between callers and cannot be written.

    Raises:
        ValueError: a negative number of pulls, or a discount that is none.
    """
    if pulls < 0:
        raise ValueError(f"pulls={pulls!r}: must not be negative")
    if not 0.0 < discount < 1.0:
        raise ValueError(f"discount={discount!r}: must be between 0 and 1, both excluded")
    charges = np.linspace(0.0, 1.0, CHARGES)
    depth = pulls + math.ceil(TAIL / (1.0 - discount))
    indices = np.full((pulls + 1, pulls + 1), np.nan)
    value = np.maximum(_means(depth)[:, None] - charges, 0.0) / (1.0 - discount)
    for played in range(depth - 1, -1, -1):
        mean = _means(played)[:, None]
        going_on = mean - charges + discount * (mean * value[1:] + (1.0 - mean) * value[:-1])
        value = np.maximum(going_on, 0.0)
        if played <= pulls:
            successes = np.arange(played + 1)
            indices[successes, played - successes] = _zeros(going_on, charges)
    indices.setflags(write=False)
    return indices


def _means(played: int) -> NDArray[np.float64]:
    """(played + 1,) the posterior means after 0, 1, ..., `played` successes in as many pulls."""
    return np.arange(1.0, played + 2.0) / (2.0 + played)


def _zeros(values: NDArray[np.float64], charges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) where falling functions of the charge, given as (n, charges), cross zero."""
    # Positive at no charge, negative at a charge of 1: every arm's mean lies between.
    last = (values > 0.0).sum(axis=1) - 1
    rows = np.arange(len(values))
    above, below = values[rows, last], values[rows, last + 1]
    return charges[last] + (charges[1] - charges[0]) * above / (above - below)
