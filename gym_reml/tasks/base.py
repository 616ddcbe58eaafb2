"""The interface of task families, which draw tasks, provide their data and compute losses.

A family is an immutable dataclass that represents a *distribution* of tasks. It works on batches of tasks ("rows"):
row i is drawn with its own generators, so rows are independent. Data and loss are separate: losses are pure functions
of (outputs, batch), so episodes can be replayed exactly.
"""

from __future__ import annotations

import dataclasses
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import NUMBERS, check_integer, is_integer, read_parameters
from gym_reml.streams import SPLITS as SPLITS
from gym_reml.streams import NumberedGenerator, check_split
from gym_reml.tasks.fingerprint import Fingerprinted

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since Python 3.11

Tasks = dict[str, NDArray[Any]]
"""A batch of tasks: named arrays whose first dimension is the row."""

Forward = Callable[[Tensor], Tensor]
"""The rows' current networks: (n, points, in_features) to (n, points, out_features)."""

Generators = Sequence[np.random.Generator]
"""One random generator per row."""

WEIGHTS = "point_weights"
"""Name of the extra with the points' weights, (n, points), summing to 1 in each row, if the number of shots varies."""


@lru_cache(maxsize=64)
def _shares(count: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # replays use the cached tensors, too
        one, two = torch.tensor([1.0 / count, 2.0 / count], dtype=dtype, device=device)
    return one, two


@dataclass
class Batch:
    """The data of n tasks.

    Attributes:
        inputs: (n, points, in_features) float32, each input flattened from the family's `input_shape`.
        targets: (n, points, ...), targets of the loss.
        extras: further tensors (n, ...) by name that a family's loss or signal needs. Those that a loss needs for each
            point are (n, points, ...).
    """

    inputs: Tensor
    targets: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def shares(self) -> tuple[Tensor, Tensor]:
        """1 and 2 over the number of a row's targets, (): for means of squares and their derivatives.

        Tensors, because multiplying by these rather than by Python numbers makes a step 3 % faster at n = 1.
        """
        return _shares(self.targets[0].numel(), self.targets.dtype, self.targets.device)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A batch with `function` applied to every tensor."""
        extras = {name: function(tensor) for name, tensor in self.extras.items()}
        return Batch(function(self.inputs), function(self.targets), extras)

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """A batch on `device` with its floating-point tensors in `dtype`; tensors are shared if nothing changes."""
        tensors = (self.inputs, self.targets, *self.extras.values())
        if all(
            tensor.device == device and (tensor.dtype == dtype or not tensor.is_floating_point()) for tensor in tensors
        ):
            return self
        return self.map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))

    def rows(self, index: Tensor) -> Batch:
        """A copy of the rows at `index` (int64 or bool)."""
        return self.map(lambda tensor: tensor[index])

    def points(self, index: Tensor) -> Batch:
        """A copy of some points of each row, with equal weights.

        Args:
            index: (n, k) int64, numbers of the points. Extras are taken likewise if their second dimension is that of
                points; others are kept.
        """
        count, points = self.inputs.shape[:2]
        rows = torch.arange(count, device=index.device).unsqueeze(1)
        batch = self.map(lambda tensor: tensor[rows, index] if tensor.shape[1:2] == (points,) else tensor.clone())
        if WEIGHTS in batch.extras:
            batch.extras[WEIGHTS].fill_(1.0 / index.shape[1])
        return batch

    def assign(self, index: Tensor, other: Batch) -> None:
        """Overwrites the rows at `index` by the rows of `other`, in place."""
        self.inputs[index] = other.inputs
        self.targets[index] = other.targets
        for name, tensor in self.extras.items():
            tensor[index] = other.extras[name]

    @staticmethod
    def concatenate(batches: Sequence[Batch]) -> Batch:
        """One batch with the rows of all `batches`, in order."""
        first = batches[0]
        extras = {name: torch.cat([batch.extras[name] for batch in batches]) for name in first.extras}
        return Batch(
            torch.cat([batch.inputs for batch in batches]), torch.cat([batch.targets for batch in batches]), extras
        )


@dataclass(frozen=True)
class TaskFamily(Fingerprinted, ABC):
    """A distribution of tasks. Subclasses are frozen dataclasses; see `docs/extending.md` for a worked example.

    Families that draw the same tasks from the same seeds have the same `fingerprint` in all processes.

    Attributes:
        shots: number of support points of a task (per class for classification); with `varying_shots` also (low, high):
            each task then draws its own number uniformly from low to high.
        queries: total number of query points of a task.
        split: "train", "validation" or "test". Tasks of different splits never coincide: finite families draw from
            disjoint classes, continuous ones from disjoint random streams (`gym_reml.streams`).

    Raises:
        ValueError: an argument out of range.
    """

    name: ClassVar[str]
    fixed_data: ClassVar[bool] = True
    """True: support and query sets are drawn once per episode. False: at every step, by the current network."""
    in_threads: ClassVar[bool] = False
    """Whether several threads may draw the sets of different rows at once, without a look at the networks: only where
    nothing that a subclass or a user adds is called."""
    exchangeable_outputs: ClassVar[bool] = False
    """Whether the order of the outputs is arbitrary (class labels): observations are then invariant to it."""
    varying_shots: ClassVar[bool] = False
    """Whether `shots` may be (low, high): this class and its bases then weight points by WEIGHTS. A subclass that
    overrides one of the methods WEIGHING has to set it again."""
    cap: ClassVar[float] = 1e4
    """Steps that raise the support loss above this value are refused; larger query losses are capped at it."""

    shots: int | tuple[int, int] = 5
    queries: int = 50
    split: str = "train"

    def __post_init__(self) -> None:
        check_integer("queries", self.queries)
        object.__setattr__(self, "queries", int(self.queries))
        object.__setattr__(self, "shots", self._read_shots())
        check_split(self.split)

    def _read_shots(self) -> int | tuple[int, int]:
        if not isinstance(self.shots, Sequence) or isinstance(self.shots, str):
            check_integer("shots", self.shots)
            return int(self.shots)
        if not (len(self.shots) == 2 and all(map(is_integer, self.shots)) and 1 <= self.shots[0] <= self.shots[1]):
            raise ValueError(f"shots={self.shots!r}: must be a positive integer, or two of them, (low, high)")
        classes = type(self).__mro__
        declared = next(place for place, kind in enumerate(classes) if "varying_shots" in vars(kind))
        overriding = [name for kind in classes[:declared] for name in WEIGHING if name in vars(kind)]
        if not self.varying_shots or overriding:
            why = f" (its own {', '.join(overriding)} may count all points alike)" if self.varying_shots else ""
            raise ValueError(f"shots={self.shots!r}: {self.name!r} takes one number for all tasks{why}")
        return int(self.shots[0]), int(self.shots[1])

    @property
    def most_shots(self) -> int:
        """Largest number of support points of a task (per class for classification)."""
        return self.shots if isinstance(self.shots, int) else self.shots[1]

    @property
    def shots_in_words(self) -> str:
        """The shots as text, such as "1 shot" or "3 to 10 shots"."""
        if isinstance(self.shots, int):
            return f"{self.shots} shot{'s' if self.shots > 1 else ''}"
        return f"{self.shots[0]} to {self.shots[1]} shots"

    def draw_counts(self, generators: Generators) -> NDArray[np.int64] | None:
        """Draws the rows' numbers of shots, (n,) int64; None, without drawing, if all rows have the same."""
        if isinstance(self.shots, int):
            return None
        low, high = self.shots
        return np.array([generator.integers(low, high + 1) for generator in generators])

    def replace(self, **changes: Any) -> Self:
        """A copy with changed arguments, as by `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)

    @property
    def task_count(self) -> int | None:
        """Number of tasks in the split; None if it is infinite."""
        return None

    @property
    @abstractmethod
    def in_features(self) -> int:
        """Number of inputs of the networks."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an input, which batches hold flattened: (in_features,); (channels, height, width) for images."""
        return (self.in_features,)

    @property
    @abstractmethod
    def out_features(self) -> int:
        """Number of outputs of the networks."""

    @property
    def constant_outputs(self) -> int:
        """Number of outputs, the last ones, that do not depend on the input (log standard deviations of policies)."""
        return 0

    @abstractmethod
    def draw(self, generators: Generators) -> Tasks:
        """Draws one task per generator."""

    @abstractmethod
    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """Support sets, which the networks are trained on, as CPU tensors."""

    @abstractmethod
    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """Query sets, which the networks are evaluated on, as CPU tensors."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Loss of each row, (n,): pure and differentiable in `outputs` (n, points, out_features)."""

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Gradient of each row's loss with respect to its outputs, (n, points, out_features).

        It is itself differentiable. Override it with a closed form if there is one, so that environment steps, where
        autograd is disabled, do not need it.
        """
        differentiable = torch.is_grad_enabled() and outputs.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            if not outputs.requires_grad:
                # Autograd accepts tensors computed in inference mode, as in environment steps, only as copies.
                outputs = (outputs.clone() if outputs.is_inference() else outputs.detach()).requires_grad_()
            total = self.loss(outputs, batch).sum()
            return torch.autograd.grad(total, outputs, create_graph=differentiable)[0]

    def squared_targets(self, batch: Batch) -> Tensor | None:
        """What outputs are compared with, (n, points, out_features), where `loss` is the mean of squared differences.

        None for any other loss, as of points with weights: compiled loops then leave the loss to `output_gradient`. So
        they do where targets are not shaped as the outputs.
        """
        return None

    def score(self, loss: Tensor) -> Tensor:
        """Scores, the scale of losses in rewards, elementwise: log1p, for non-negative losses."""
        return torch.log1p(loss)

    @abstractmethod
    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        """The usual metrics of the family (mse, accuracy, return) by name, each (n,); `loss` (n,) is the rows' loss."""

    @property
    def signal_size(self) -> int:
        """Length of `support_signal`."""
        return 0

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Summary of the support set for the agent's observation, (n, signal_size).

        It must use neither task parameters nor query data, and not depend on the number or the order of points.
        """
        return outputs.new_zeros(len(outputs), 0)

    def linear_signal(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """What `support_signal` is made of, if it is a matrix times `targets - outputs`, and then constants; else None.

        Compiled loops then compute it, where there is one output, with targets (n, points, 1). They ask for it once in
        an episode if `fixed_data`, else at every step. What does not fit these shapes is left to `support_signal`.

        Returns:
            The matrices, (n, size, points), and the constants, (n, signal_size - size), floating-point.
        """
        return None

    def curve(self, tasks: Tasks, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """For rendering: grid (m,) and true function (m,) of a row's task, if tasks are scalar functions; else None."""
        return None

    def paths(self, tasks: Tasks, batch: Batch, row: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """For rendering: paths (m, steps + 1, 2) of a row's trajectories in the plane, and the goal (2,); else None.

        Positions after the end of a trajectory are NaN.
        """
        return None

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """For rendering: (height, width) if inputs are images; else None."""
        return None

    def describe(self, tasks: Tasks, row: int) -> dict[str, Any]:
        """A readable description of one row's task; not observed by agents."""
        return {"family": self.name} | {name: values[row].tolist() for name, values in tasks.items()}

    def task_parameters(self, tasks: Tasks) -> Tasks:
        """Numeric parameters that identify tasks, (n, ...) by name: `info["task"]`, and the format of `read_task`.

        By default all numeric arrays of the tasks; families leave out choices of points, which do not define a task.
        """
        return {name: values for name, values in tasks.items() if values.dtype.kind in NUMBERS}

    def read_task(self, given: Any, rows: NDArray[np.int64], count: int) -> Tasks:
        """Reads a user's tasks, in the format of `task_parameters`.

        Args:
            given: parameters by name, each of one task, or of all rows, (count, ...).
            rows: row numbers to read tasks for.
            count: number of rows.

        Returns:
            The parameters, each (len(rows), ...).

        Raises:
            ValueError: other names, shapes or types, numbers that are not finite, or a task that does not exist.
        """
        # An unused task provides names, shapes and dtypes.
        like = self.task_parameters(self.draw([np.random.default_rng(0)]))
        parameters = read_parameters(given, like, rows=rows, count=count)
        self.check_parameters(parameters)
        return parameters

    def check_parameters(self, parameters: Tasks) -> None:
        """Raises a ValueError for parameters of the right shape that are not tasks, such as indices out of range."""

    def draw_given(self, parameters: Tasks, generators: Generators) -> Tasks:
        """Tasks with these parameters, one per generator; everything else about them is drawn."""
        return self.draw(generators) | parameters


WEIGHING = ("loss", "output_gradient", "metrics", "support", "support_signal")
"""Methods that have to use the weights of points if the number of shots varies."""


def padded(places: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], Tensor]:
    """Pads rows with fewer points: copies of the first points, with weight 0.

    Args:
        places: (points,) int64, index of each point within its class, or within all points.
        counts: (n,) int64, number of points (per class) of each row.

    Returns:
        Index of the point to use at each place, (n, points) int64, and the WEIGHTS, (n, points) float32.
    """
    weights = (places < counts[:, None]).astype(np.float32)
    return places % counts[:, None], torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))


SEVERAL, MANY = 32, 1024
"""Numbers of rows from which on numbers are drawn by a compiled loop: where numba is imported, or only installed."""


@lru_cache(maxsize=1)
def _compiled_fill() -> Callable[[Generators, NDArray[np.float64]], bool] | None:
    try:
        from gym_reml.tasks.compiled_draws import fill
    except (ImportError, RuntimeError):  # not installed, of another numpy, or without a place for its cache
        return None
    return fill


def uniforms(generators: Generators, count: int) -> NDArray[np.float64]:
    """`count` uniform random numbers in [0, 1) from each generator, (n, count) float64."""
    numbers = np.empty((len(generators), count))
    compiled = len(generators) >= (SEVERAL if "numba" in sys.modules else MANY)
    if compiled and (fill := _compiled_fill()) is not None and fill(generators, numbers):
        return numbers
    for row, generator in zip(numbers, generators, strict=True):
        generator.random(out=row)
    return numbers


def pick(generator: np.random.Generator, count: int) -> int:
    """Index of one of `count` tasks: uniformly random, or the number of a `NumberedGenerator`."""
    # Drawn in both cases, so that later draws do not depend on the case.
    drawn = int(generator.integers(count))
    return generator.number % count if isinstance(generator, NumberedGenerator) else drawn
