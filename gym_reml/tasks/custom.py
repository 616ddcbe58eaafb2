"""User-defined families, from arrays or from a formula."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gym_reml.checks import check_places
from gym_reml.streams import many_streams
from gym_reml.tasks.arrays import immutable, read_array, read_finite, standardised
from gym_reml.tasks.base import SPLITS, WEIGHTS, Batch, Forward, Generators, TaskFamily, Tasks, padded, pick
from gym_reml.tasks.functions.base import INPUT_RANGE, Regression1d, checked_range
from gym_reml.tasks.supervised import Classification, Regression

SPLIT_SHARES = (0.6, 0.2, 0.2)
SCALE_TASKS, SCALE_POINTS = 1000, 101
"""Numbers of tasks and of points per task from which a formula's scale is estimated."""
FEW_VALUES = 20
"""Integer-valued targets with at most this many different values are suspected to be class numbers."""


@dataclass(frozen=True)
class Formula(Regression1d):
    """Scalar functions y = formula(x, **parameters) with uniform random parameters. Created by `from_function`."""

    name: ClassVar[str] = "formula"

    formula: Callable[..., NDArray[np.float64]] = field(default=np.zeros_like)
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    standardise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.formula):
            raise ValueError(f"formula={self.formula!r}: must be callable as formula(x, **parameters)")
        if not isinstance(self.parameters, Mapping) or not self.parameters:
            raise ValueError(f"parameters={self.parameters!r}: must name at least one parameter and its (low, high)")
        ranges = {name: checked_range(f"parameters[{name!r}]", bounds) for name, bounds in self.parameters.items()}
        # Copies, so that later changes to the caller's dict do not change tasks.
        object.__setattr__(self, "parameters", ranges)
        object.__setattr__(self, "ranges", dict(ranges))
        if not isinstance(self.standardise, bool | np.bool_):
            raise ValueError(f"standardise={self.standardise!r}: must be true or false")
        object.__setattr__(self, "_scale", (0.0, 1.0))
        if self.standardise:
            object.__setattr__(self, "_scale", self._training_scale())

    def _training_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the targets of SCALE_TASKS training tasks."""
        train = [row.task for row in many_streams(0, SCALE_TASKS, "train")]
        x = np.tile(np.linspace(*INPUT_RANGE, SCALE_POINTS), (SCALE_TASKS, 1))
        with np.errstate(under="ignore"):
            y = self.evaluate(self.draw(train), x)
        # The standard deviation of constant targets would be a rounding error.
        return float(y.mean()), float(y.std()) if y.min() < y.max() else 1.0

    def evaluate(self, tasks: Tasks, x: NDArray[np.float64]) -> NDArray[np.float64]:
        # Copies, so that a formula that modifies its arguments does not change the inputs or the tasks.
        y = np.asarray(self.formula(x.copy(), **{name: values[:, None].copy() for name, values in tasks.items()}))
        # A function of the parameters alone gives (n, 1). Other shapes must not broadcast: (n,) could be points.
        if y.shape not in (x.shape, (len(x), 1), ()):
            raise ValueError(f"formula: returned shape {y.shape} for x of shape {x.shape} and parameters ({len(x)}, 1)")
        if not np.isfinite(y).all():
            raise ValueError("formula: returned values that are not finite")
        mean, deviation = self.__dict__["_scale"]
        return np.broadcast_to((y - mean) / deviation, x.shape)

    @staticmethod
    def function(x: NDArray[np.float64], parameters: Tasks) -> NDArray[np.float64]:
        raise NotImplementedError("a Formula is evaluated by `evaluate`")


def from_function(
    formula: Callable[..., NDArray[np.float64]], parameters: Mapping[str, tuple[float, float]], **arguments: Any
) -> Formula:
    """A family of scalar functions on [-5, 5].

    Args:
        formula: vectorised function, called as formula(x, **parameters) with x (n, points) and every parameter (n, 1).
            To pickle environments, use a module-level function rather than a lambda.
        parameters: (low, high) of each parameter's uniform distribution.
        **arguments: `shots`, `queries`, `split`; `standardise=True` shifts and scales the targets such that those of
            training tasks have mean 0 and standard deviation 1, for all splits alike; losses and metrics are then in
            these units. Inputs are not changed, as their range is the same for every formula.

    Raises:
        ValueError: no parameters, or invalid ranges; when data is drawn, a formula that does not return finite numbers
            for all points.
    """
    return Formula(formula=formula, parameters=parameters, **arguments)


@dataclass(frozen=True, eq=False)
class _Arrays(TaskFamily):
    """Tasks stored as immutable arrays: x (tasks, points, in_features) and y (tasks, points, ...)."""

    x: NDArray[np.float32] = field(default_factory=lambda: np.zeros((3, 100, 1), np.float32))
    y: NDArray[Any] = field(default_factory=lambda: np.zeros((3, 100, 1), np.float32))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "x", read_finite("x", self.x))
        object.__setattr__(self, "y", self.read_targets(self.y))
        if self.x.ndim != 3 or self.y.shape[:2] != self.x.shape[:2] or 0 in self.x.shape[2:] + self.y.shape[2:]:
            raise ValueError(
                f"x {self.x.shape}, y {self.y.shape}: must be (tasks, points, in_features) and (tasks, points, ...)"
            )
        if len(self.x) < len(SPLITS):
            raise ValueError(f"x holds {len(self.x)} tasks: at least {len(SPLITS)} are needed, one for each split")
        if self.most_shots + self.queries > self.x.shape[1]:
            raise ValueError(
                f"shots={self.shots}, queries={self.queries}: together more than the {self.x.shape[1]} points of a task"
            )

    @staticmethod
    @abstractmethod
    def read_targets(values: ArrayLike) -> NDArray[Any]:
        """An immutable copy of the targets."""

    @property
    def in_features(self) -> int:
        return int(self.x.shape[2])

    @property
    def members(self) -> NDArray[np.int64]:
        """Indices of the split's tasks: 60, 20 and 20 % of a fixed permutation for the three splits."""
        order = np.random.default_rng(0).permutation(len(self.x))
        held_out = [max(1, round(share * len(order))) for share in SPLIT_SHARES[1:]]
        edges = np.cumsum([len(order) - sum(held_out), *held_out[:-1]])
        return np.split(order, edges)[SPLITS.index(self.split)]

    @property
    def task_count(self) -> int:
        return len(self.members)

    def draw(self, generators: Generators) -> Tasks:
        members = self.members
        task = members[[pick(generator, len(members)) for generator in generators]]
        points = np.array([generator.permutation(self.x.shape[1]) for generator in generators])
        # From opposite ends, so that neither set depends on the size of the other.
        return {
            "task": task,
            "support": points[:, : self.most_shots].copy(),
            "query": points[:, ::-1][:, : self.queries].copy(),
        }

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        counts = self.draw_counts(generators)
        if counts is None:
            return self._pick(tasks, "support")
        places, weights = padded(np.arange(self.most_shots), counts)
        batch = self._pick(
            {"task": tasks["task"], "support": np.take_along_axis(tasks["support"], places, 1)}, "support"
        )
        batch.extras[WEIGHTS] = weights
        return batch

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
    """Regression tasks stored as arrays; y (tasks, points, out_features) float32. Created by `from_arrays`."""

    name: ClassVar[str] = "array-regression"
    varying_shots: ClassVar[bool] = True

    @staticmethod
    def read_targets(values: ArrayLike) -> NDArray[Any]:
        """An immutable float32 copy; all values must be finite."""
        return read_finite("y", values)

    @property
    def out_features(self) -> int:
        return int(self.y.shape[2])


@dataclass(frozen=True, eq=False)
class ArrayClassification(_Arrays, Classification):
    """Classification tasks stored as arrays; y (tasks, points) int64 class numbers. Created by `from_arrays`."""

    name: ClassVar[str] = "array-classification"
    varying_shots: ClassVar[bool] = True

    @staticmethod
    def read_targets(values: ArrayLike) -> NDArray[Any]:
        """An immutable int64 copy; class numbers must not be negative, and less than the number of labels."""
        classes = read_array("y", values)
        if classes.size and classes.min() < 0:
            raise ValueError(f"y: classes must not be negative, found {classes.min()}")
        if classes.size and classes.max() >= classes.size:
            raise ValueError(
                f"y: classes are numbered from 0, found {classes.max()} among {classes.size} labels; "
                "np.unique(y, return_inverse=True)[1] numbers them so"
            )
        return immutable(classes.astype(np.int64, copy=False))

    @property
    def out_features(self) -> int:
        return int(self.y.max()) + 1


def from_arrays(
    x: ArrayLike, y: ArrayLike, *, standardise: bool = False, **arguments: Any
) -> ArrayRegression | ArrayClassification:
    """A family from arrays: each task is a row of `x` and `y`, whose points are split at random into support and query.

    The arrays are copied. For few-shot classification of labelled examples, on held-out classes, see `from_classes`.

    Args:
        x: (tasks, points, in_features).
        y: (tasks, points, out_features) floats for regression, (tasks, points) integers for classification.
        standardise: shift and scale each input, and in regression each output, such that those of the training tasks
            have mean 0 and standard deviation 1; validation and test tasks do not enter the statistics. Losses and
            metrics are then in these units.
        **arguments: `shots` and `queries` (numbers of points of a task, over all classes), `split`.

    Raises:
        ValueError: inconsistent shapes, values that are not finite, integers that may be either class numbers or
            regression targets, negative class numbers, or too few points.
    """
    targets = read_array("y", y)
    if targets.dtype.kind not in "iubf":
        raise ValueError(
            f"y {targets.shape} {targets.dtype}: must be numbers; np.unique(y, return_inverse=True)[1] numbers classes"
        )
    integers = targets.dtype.kind in "iub"
    if integers and targets.ndim == 3:
        raise ValueError(
            f"y {targets.shape} {targets.dtype}: may be class numbers or targets of a regression. Give classes as "
            "(tasks, points), such as y[..., 0] or, of one-hot rows, y.argmax(axis=2); for regression give floats, "
            "y.astype(float)"
        )
    if targets.ndim != (2 if integers else 3):
        raise ValueError(
            f"y {targets.shape} {targets.dtype}: must be (tasks, points, out_features) numbers, "
            "or (tasks, points) integers for classification"
        )
    family: ArrayRegression | ArrayClassification
    family = (ArrayClassification if integers else ArrayRegression)(x=read_array("x", x), y=targets, **arguments)
    if not integers and _look_like_classes(family.y):
        warnings.warn(
            "y: floats are targets of a regression, but these look like class numbers; for classification give "
            "integers (tasks, points)",
            stacklevel=2,
        )
    if not standardise:
        return family
    train = family.replace(split="train").members
    changes: dict[str, Any] = {"x": standardised(family.x, family.x[train])}
    if not integers:
        changes["y"] = standardised(family.y, family.y[train])
    return family.replace(**changes)


def _look_like_classes(targets: NDArray[np.float32]) -> bool:
    """Whether targets are few non-negative integers, or one-hot rows."""
    # The first task decides most cases quickly.
    if any((part < 0).any() or (part != np.floor(part)).any() for part in (targets[:1], targets)):
        return False
    if targets.shape[2] == 1:
        return 1 < len(np.unique(targets)) <= FEW_VALUES
    return bool((targets.sum(axis=2) == 1).all())
