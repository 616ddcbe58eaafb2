"""Families of the user's own, from arrays or from a formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gym_reml.checks import check_places
from gym_reml.tasks.base import SPLITS, Batch, Forward, Generators, TaskFamily, Tasks
from gym_reml.tasks.regression1d import Regression1d, checked_range
from gym_reml.tasks.supervised import Classification, Regression

SPLIT_SHARES = (0.6, 0.2, 0.2)


@dataclass(frozen=True)
class Formula(Regression1d):
    """Scalar functions y = formula(x, **parameters) with uniformly drawn parameters. Made by `from_function`."""

    name: ClassVar[str] = "formula"

    formula: Callable[..., NDArray[np.float64]] = field(default=np.zeros_like)
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.formula):
            raise ValueError(f"formula={self.formula!r}: must be callable as formula(x, **parameters)")
        if not isinstance(self.parameters, Mapping) or not self.parameters:
            raise ValueError(f"parameters={self.parameters!r}: must name at least one parameter and its (low, high)")
        ranges = {name: checked_range(f"parameters[{name!r}]", bounds) for name, bounds in self.parameters.items()}
        object.__setattr__(self, "ranges", ranges)

    def evaluate(self, tasks: Tasks, x: NDArray[np.float64]) -> NDArray[np.float64]:
        y = np.asarray(self.formula(x, **{name: values[:, None] for name, values in tasks.items()}))
        # A function of the parameters alone gives (n, 1). Nothing else may be stretched: (n,) would pass for points.
        if y.shape not in (x.shape, (len(x), 1), ()):
            raise ValueError(f"formula: gave shape {y.shape} for x of shape {x.shape} and parameters ({len(x)}, 1)")
        if not np.isfinite(y).all():
            raise ValueError("formula: gave values that are not finite")
        return np.broadcast_to(y, x.shape)

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        raise NotImplementedError("a Formula is evaluated by `evaluate`")


def from_function(
    formula: Callable[..., NDArray[np.float64]], parameters: Mapping[str, tuple[float, float]], **arguments: Any
) -> Formula:
    """A family of scalar functions on [-5, 5].

    Args:
        formula: vectorised, called as formula(x, **parameters) with x (n, points) and every parameter (n, 1). Use a
            function of a module rather than a lambda if the environment shall be pickled.
        parameters: the (low, high) of each parameter's uniform distribution.
        **arguments: `shots`, `queries`, `split`.

    Raises:
        ValueError: no parameters, or bad ranges; later, when tasks are drawn, a formula that gives something else than
            finite numbers for all points.
    """
    return Formula(formula=formula, parameters=parameters, **arguments)


@dataclass(frozen=True, eq=False)
class _Arrays(TaskFamily):
    """Tasks stored as arrays: x (tasks, points, in_features) and y (tasks, points, ...)."""

    x: NDArray[np.float32] = field(default_factory=lambda: np.zeros((3, 100, 1), np.float32))
    y: NDArray[Any] = field(default_factory=lambda: np.zeros((3, 100, 1), np.float32))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.x.ndim != 3 or self.y.shape[:2] != self.x.shape[:2] or 0 in self.x.shape[2:] + self.y.shape[2:]:
            raise ValueError(
                f"x {self.x.shape}, y {self.y.shape}: must be (tasks, points, in_features) and (tasks, points, ...)"
            )
        if len(self.x) < len(SPLITS):
            raise ValueError(f"x holds {len(self.x)} tasks: at least {len(SPLITS)} are needed, one for each split")
        if self.shots + self.queries > self.x.shape[1]:
            raise ValueError(
                f"shots={self.shots}, queries={self.queries}: together more than the {self.x.shape[1]} points of a task"
            )

    @property
    def in_features(self) -> int:
        return int(self.x.shape[2])

    def _members(self) -> NDArray[np.int64]:
        """The tasks of the split: the first 60, 20, 20 % of a fixed permutation, at least one task each."""
        order = np.random.default_rng(0).permutation(len(self.x))
        held_out = [max(1, round(share * len(order))) for share in SPLIT_SHARES[1:]]
        edges = np.cumsum([len(order) - sum(held_out), *held_out[:-1]])
        return np.split(order, edges)[SPLITS.index(self.split)]

    def draw(self, generators: Generators) -> Tasks:
        members = self._members()
        task = members[[generator.integers(len(members)) for generator in generators]]
        points = np.array([generator.permutation(self.x.shape[1]) for generator in generators])
        # From both ends, so that neither changes with the size of the other.
        return {
            "task": task,
            "support": points[:, : self.shots].copy(),
            "query": points[:, ::-1][:, : self.queries].copy(),
        }

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._pick(tasks, "support")

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._pick(tasks, "query")

    def _pick(self, tasks: Tasks, part: str) -> Batch:
        index = tasks["task"][:, None], tasks[part]
        return Batch(torch.from_numpy(self.x[index]), torch.from_numpy(self.y[index]))

    def describe(self, tasks: Tasks, row: int) -> dict[str, Any]:
        return {"family": self.name, "task": int(tasks["task"][row])}

    def task_parameters(self, tasks: Tasks) -> Tasks:
        return {"task": tasks["task"]}

    def check_parameters(self, parameters: Tasks) -> None:
        check_places("task", parameters["task"], len(self.x))


@dataclass(frozen=True, eq=False)
class ArrayRegression(_Arrays, Regression):
    """Regression tasks stored as arrays; y (tasks, points, out_features). Made by `from_arrays`."""

    name: ClassVar[str] = "array-regression"

    @property
    def out_features(self) -> int:
        return int(self.y.shape[2])


@dataclass(frozen=True, eq=False)
class ArrayClassification(_Arrays, Classification):
    """Classification tasks stored as arrays; y (tasks, points) class numbers. Made by `from_arrays`."""

    name: ClassVar[str] = "array-classification"

    @property
    def out_features(self) -> int:
        return int(self.y.max()) + 1


def from_arrays(x: ArrayLike, y: ArrayLike, **arguments: Any) -> ArrayRegression | ArrayClassification:
    """A family from data: every task is one row of `x` and `y`, its points are split at random into support and query.

    Args:
        x: (tasks, points, in_features).
        y: (tasks, points, out_features) numbers for regression, (tasks, points) integers for classification.
        **arguments: `shots` and `queries` (points of the whole task), `split`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, negative classes, or too few points.
    """
    inputs, targets = _read_finite("x", x), _read("y", y)
    if np.issubdtype(targets.dtype, np.integer) and targets.ndim == 2:
        if (targets < 0).any():
            raise ValueError(f"y: classes must not be negative, found {targets.min()}")
        return ArrayClassification(x=inputs, y=targets.astype(np.int64), **arguments)
    if targets.ndim != 3:
        raise ValueError(
            f"y {targets.shape} {targets.dtype}: must be (tasks, points, out_features) numbers, "
            "or (tasks, points) integers for classification"
        )
    return ArrayRegression(x=inputs, y=_read_finite("y", targets), **arguments)


def _read(argument: str, values: ArrayLike, dtype: type | None = None) -> NDArray[Any]:
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument}: must be an array of numbers ({error})") from error


def _read_finite(argument: str, values: ArrayLike) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(_read(argument, values, np.float32))
    if not np.isfinite(numbers).all():
        raise ValueError(f"{argument}: must be finite, as float32")
    return numbers
