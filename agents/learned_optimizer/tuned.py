"""Optimizers with constant step sizes, tuned for each family on validation problems, or for each problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .descent import Descent, Fixed, descend
from .problems import ProblemFamily

TUNING_PROBLEMS = 50
"""Validation problems of a family that step sizes are tuned on."""
RATES = tuple(float(rate) for rate in np.logspace(-4, 1, 16))
"""The step sizes that are tried, three a decade."""


def try_all(
    optimizer: str,
    kind: ProblemFamily,
    count: int,
    split: str,
    steps: Sequence[int],
    rates: Sequence[float] | None = None,
) -> Descent:
    """The same problems with every rate, by default all RATES, (S, rates, count)."""
    rates = RATES if rates is None else rates
    problems = (kind.tested(count) if split == "test" else kind.drawn(0, count, split)).copied(len(rates))
    descent = descend(Fixed(optimizer, torch.tensor(rates).repeat(count)), problems, steps)
    shape = (len(steps), count, len(rates))
    return Descent(descent.log_ratio.reshape(shape).swapaxes(1, 2), descent.diverged.reshape(shape).swapaxes(1, 2))


def tuned_for_family(optimizer: str, kind: ProblemFamily, count: int, steps: Sequence[int]) -> Descent:
    """Test problems, for each number of steps with the rate that is best on validation problems after as many."""
    means = try_all(optimizer, kind, TUNING_PROBLEMS, "validation", steps).log_ratio.mean(axis=2)
    used, places = np.unique(means.argmin(axis=1), return_inverse=True)
    every = try_all(optimizer, kind, count, "test", steps, [RATES[rate] for rate in used])
    return _chosen(every, np.broadcast_to(places.reshape(-1, 1, 1), (len(steps), 1, count)))


def tuned_for_problem(optimizer: str, kind: ProblemFamily, count: int, steps: Sequence[int]) -> Descent:
    """Test problems, for each of them and each number of steps with the rate that is best: as many runs as rates."""
    every = try_all(optimizer, kind, count, "test", steps)
    return _chosen(every, every.log_ratio.argmin(axis=1)[:, None])


def _chosen(every: Descent, rates: NDArray[np.int64]) -> Descent:
    """The runs (S, count) with these rates (S, 1, count)."""
    return Descent(
        np.take_along_axis(every.log_ratio, rates, 1)[:, 0], np.take_along_axis(every.diverged, rates, 1)[:, 0]
    )
