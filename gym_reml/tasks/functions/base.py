"""One-dimensional regression: points on the interval [-5, 5] of a random function."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.tasks.base import WEIGHTS, Batch, Forward, Generators, Tasks, counted, uniforms
from gym_reml.tasks.supervised import Regression

INPUT_RANGE = (-5.0, 5.0)
GRID = np.linspace(*INPUT_RANGE, 11)
BANDWIDTH = 0.7
# Grid points with hardly any support nearby shrink towards zero instead of copying a far-away point.
PRIOR_DENSITY = 0.02


@dataclass(frozen=True)
class Regression1d(Regression):
    """Base of the scalar functions. A subclass names its parameters' uniform ranges and gives the function.

    Inputs are uniform on [-5, 5], for support and query alike (the convention of MAML's sinusoid).
    """

    ranges: ClassVar[Mapping[str, tuple[float, float]]]
    varying_shots: ClassVar[bool] = True
    either_sign: ClassVar[frozenset[str]] = frozenset()
    """Parameters whose range is that of their size: half of the tasks have them negative (keeps them away from 0)."""

    @staticmethod
    @abstractmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        """The tasks' functions at x (n, points); every parameter has shape (n, 1), or (n, 1, k) if it is a vector."""

    @property
    def in_features(self) -> int:
        return 1

    @property
    def out_features(self) -> int:
        return 1

    def draw(self, generators: Generators) -> Tasks:
        return self.scaled(uniforms(generators, len(self.ranges)).T)

    def scaled(self, numbers: NDArray[np.float64]) -> Tasks:
        """Parameters out of uniform numbers in [0, 1), (parameters, n) or, where they are vectors, (parameters, n, k).

        For a family that draws them in its own way.
        """
        tasks = {}
        for (name, (low, high)), column in zip(self.ranges.items(), numbers, strict=True):
            if name in self.either_sign:
                # One number for both: the half it lies in is the sign, its distance from the middle the size.
                column = 2.0 * column - 1.0
                tasks[name] = np.copysign(low + (high - low) * np.abs(column), column)
            else:
                tasks[name] = low + (high - low) * column
        return tasks

    def evaluate(self, tasks: Tasks, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The tasks' functions at the inputs x (n, points)."""
        return self.function(x, {name: values[:, None] for name, values in tasks.items()})

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        batch = self._points(tasks, generators, self.most_shots)
        counts = self.draw_counts(generators)
        if counts is not None:
            places, weights = counted(np.arange(self.most_shots), counts)
            index = torch.from_numpy(places).unsqueeze(2)
            batch = Batch(batch.inputs.gather(1, index), batch.targets.gather(1, index), {WEIGHTS: weights})
        batch.extras |= smoothing(batch.inputs, batch.targets, batch.extras.get(WEIGHTS))
        return batch

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._points(tasks, generators, self.queries)

    def _points(self, tasks: Tasks, generators: Generators, count: int) -> Batch:
        low, high = INPUT_RANGE
        x = low + (high - low) * uniforms(generators, count)
        with np.errstate(under="ignore"):  # what is too small for float32 becomes 0
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

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Residual, target and density of the support points, smoothed onto an 11-point grid: (n, 33)."""
        residual = torch.bmm(batch.extras["smoother"], batch.targets - outputs).squeeze(2)
        return torch.cat([residual, batch.extras["static_signal"]], dim=1)


def checked_range(argument: str, value: Any) -> tuple[float, float]:
    """The (low, high) that a user gave as `argument`, as floats.

    Raises:
        ValueError: not two finite numbers with low <= high.
    """
    try:
        # JSON's strings and booleans would pass for numbers.
        low, high = (np.nan if isinstance(bound, str | bool) else float(bound) for bound in value)
    except (TypeError, ValueError, OverflowError):
        low, high = np.nan, np.nan
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"{argument}={value!r}: must be finite numbers (low, high) with low <= high")
    return low, high


def smoothing(inputs: Tensor, targets: Tensor, point_weights: Tensor | None = None) -> dict[str, Tensor]:
    """What `support_signal` needs of a support set: the kernel smoother (n, 11, points), and the parts that stay.

    Everything is a mean over points: neither their order nor how often the whole set is repeated makes a difference.
    """
    # In numpy, whose calls on so little data cost half of what torch's do. In float64, where far points' weights do not
    # become denormal numbers, which are slow.
    x, y = inputs.numpy()[:, None, :, 0].astype(np.float64), targets.numpy()
    weights = np.exp(np.square(GRID[:, None] - x) * (-0.5 / BANDWIDTH**2))
    if point_weights is None:
        weights /= inputs.shape[1]
    else:
        weights *= point_weights.numpy()[:, None]
    density = np.add.reduce(weights, axis=2)
    with np.errstate(under="ignore"):  # on the way to float32 far points' weights become 0, as they should
        smoother = (weights / (density + PRIOR_DENSITY)[:, :, None]).astype(np.float32)
        static_signal = np.concatenate([(smoother @ y)[:, :, 0], density], axis=1, dtype=np.float32)
    return {"smoother": torch.from_numpy(smoother), "static_signal": torch.from_numpy(static_signal)}
