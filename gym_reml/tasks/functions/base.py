"""One-dimensional regression: random scalar functions on the interval [-5, 5]."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.tasks.base import WEIGHTS, Batch, Forward, Generators, Tasks, padded, uniforms
from gym_reml.tasks.supervised import Regression

INPUT_RANGE = (-5.0, 5.0)
GRID = np.linspace(*INPUT_RANGE, 11)
BANDWIDTH = 0.7
# Smoothed values shrink towards 0 at grid points with hardly any support point nearby.
PRIOR_DENSITY = 0.02


@dataclass(frozen=True)
class Regression1d(Regression):
    """Base of the families of scalar functions. Subclasses define uniform ranges of the parameters and the function.

    Inputs of support and query sets are uniform on [-5, 5], as for the sinusoids of MAML (Finn et al. 2017,
    arXiv:1703.03400, section 5.1).
    """

    ranges: ClassVar[Mapping[str, tuple[float, float]]]
    varying_shots: ClassVar[bool] = True
    either_sign: ClassVar[frozenset[str]] = frozenset()
    """Parameters with a random sign, whose range is that of their magnitude, which keeps them away from 0."""

    @staticmethod
    @abstractmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        """Values (n, points) of the functions at x (n, points); parameters are (n, 1), or (n, 1, k) for vectors."""

    @property
    def in_features(self) -> int:
        return 1

    @property
    def out_features(self) -> int:
        return 1

    def draw(self, generators: Generators) -> Tasks:
        return self.scaled(uniforms(generators, len(self.ranges)).T)

    def scaled(self, numbers: NDArray[np.float64]) -> Tasks:
        """Tasks from uniform numbers in [0, 1), (parameters, n) or, for vectors, (parameters, n, k), by `ranges`."""
        tasks = {}
        for (name, (low, high)), column in zip(self.ranges.items(), numbers, strict=True):
            if name in self.either_sign:
                # One number for both: its half of [0, 1) gives the sign, its distance from 1/2 the magnitude.
                column = 2.0 * column - 1.0
                tasks[name] = np.copysign(low + (high - low) * np.abs(column), column)
            else:
                tasks[name] = low + (high - low) * column
        return tasks

    def evaluate(self, tasks: Tasks, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (n, points) of the tasks' functions at x (n, points)."""
        return self.function(x, {name: values[:, None] for name, values in tasks.items()})

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        batch = self._points(tasks, generators, self.most_shots)
        counts = self.draw_counts(generators)
        if counts is not None:
            places, weights = padded(np.arange(self.most_shots), counts)
            index = torch.from_numpy(places).unsqueeze(2)
            batch = Batch(batch.inputs.gather(1, index), batch.targets.gather(1, index), {WEIGHTS: weights})
        batch.extras |= smoothing(batch.inputs, batch.targets, batch.extras.get(WEIGHTS))
        return batch

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._points(tasks, generators, self.queries)

    def _points(self, tasks: Tasks, generators: Generators, count: int) -> Batch:
        low, high = INPUT_RANGE
        x = low + (high - low) * uniforms(generators, count)
        with np.errstate(under="ignore"):  # values too small for float32 become 0
            y = self.evaluate(tasks, x).astype(np.float32)
            x = x.astype(np.float32)
        return Batch(torch.from_numpy(x).unsqueeze(2), torch.from_numpy(y).unsqueeze(2))

    def curve(self, tasks: Tasks, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x = np.linspace(*INPUT_RANGE, 201)
        with np.errstate(under="ignore"):
            return x, self.evaluate({name: values[[row]] for name, values in tasks.items()}, x[None])[0]

    @property
    def signal_size(self) -> int:
        return 3 * len(GRID)

    def linear_signal(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        own = type(self).support_signal is Regression1d.support_signal
        return (batch.extras["smoother"], batch.extras["static_signal"]) if own else None

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Residual, target and density of the support points, smoothed onto an 11-point grid: (n, 33)."""
        residual = torch.bmm(batch.extras["smoother"], batch.targets - outputs).squeeze(2)
        return torch.cat([residual, batch.extras["static_signal"]], dim=1)


def checked_range(argument: str, value: Any) -> tuple[float, float]:
    """A user's (low, high) as floats; errors name `argument`.

    Raises:
        ValueError: not two finite numbers with low <= high.
    """
    try:
        # Strings and booleans, as in JSON, would be converted to numbers.
        low, high = (np.nan if isinstance(bound, str | bool) else float(bound) for bound in value)
    except (TypeError, ValueError, OverflowError):
        low, high = np.nan, np.nan
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"{argument}={value!r}: must be finite numbers (low, high) with low <= high")
    return low, high


def smoothing(inputs: Tensor, targets: Tensor, point_weights: Tensor | None = None) -> dict[str, Tensor]:
    """Extras that `support_signal` needs: kernel smoother (n, 11, points), and smoothed targets and density (n, 22).

    All are means over points, so they depend neither on the order of points nor on repetitions of the whole set.

    Args:
        inputs: (n, points, 1).
        targets: (n, points, 1).
        point_weights: (n, points), summing to 1 in each row, or None for equal ones.
    """
    # In numpy, whose calls on little data take half as long as torch's; in float64, where the weights of distant points
    # do not become denormal numbers, which are slow.
    x, y = inputs.numpy()[:, None, :, 0].astype(np.float64), targets.numpy()
    weights = np.exp(np.square(GRID[:, None] - x) * (-0.5 / BANDWIDTH**2))
    if point_weights is None:
        weights /= inputs.shape[1]
    else:
        weights *= point_weights.numpy()[:, None]
    density = np.add.reduce(weights, axis=2)
    # Weights of distant points become 0 in float32. Products of finite numbers are valid, but BLAS may compute with
    # what stands behind the rows of small matrices, too, and numpy reports that.
    with np.errstate(under="ignore", invalid="ignore"):
        smoother = (weights / (density + PRIOR_DENSITY)[:, :, None]).astype(np.float32)
        static_signal = np.concatenate([(smoother @ y)[:, :, 0], density], axis=1, dtype=np.float32)
    return {"smoother": torch.from_numpy(smoother), "static_signal": torch.from_numpy(static_signal)}
