"""The contract every task family keeps: it draws tasks, gives their data and judges outputs.

A family is an immutable dataclass that stands for a *distribution* of tasks. It works on batches of tasks ("rows"):
row i is drawn with row i's own generators, so rows never depend on each other. Data and loss are apart: losses are
pure functions of (outputs, batch), so an episode can be replayed exactly.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
"""The rows' present networks: (n, points, in_features) to (n, points, out_features)."""

Generators = Sequence[np.random.Generator]

WEIGHTS = "point_weights"
"""The extra that says what each point counts for in its row's means, (n, points) summing to 1, where K varies."""


@dataclass
class Batch:
    """The data of n tasks.

    Attributes:
        inputs: (n, points, in_features) float32, what the networks see.
        targets: (n, points, ...) what the loss compares with.
        extras: further tensors with first dimension n that a family's loss or signal needs.
    """

    inputs: Tensor
    targets: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A batch whose every tensor is `function` of this one's."""
        extras = {name: function(tensor) for name, tensor in self.extras.items()}
        return Batch(function(self.inputs), function(self.targets), extras)

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """This batch on that device, its floating-point numbers of that dtype; itself where all are so already."""
        return self.map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))

    def rows(self, index: Tensor) -> Batch:
        """The rows at `index` (int64 or bool), as a copy."""
        return self.map(lambda tensor: tensor[index])

    def assign(self, index: Tensor, other: Batch) -> None:
        """Writes the rows of `other` over the rows at `index`, in place."""
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

    Its `fingerprint` is equal where families draw the same tasks from the same seeds, in whatever process.

    Attributes:
        shots: support points of a task (per class where there are classes); or, where `varying_shots`, (low, high):
            every task has its own number, any of these equally likely.
        queries: query points of a task, all together.
        split: "train", "validation" or "test". Tasks of different splits never coincide: finite families draw from
            disjoint classes, continuous ones from disjoint random streams (`gym_reml.streams`).
    """

    name: ClassVar[str]
    fixed_data: ClassVar[bool] = True
    """True: support and query are drawn once per episode. False: anew at every step, under the present network."""
    exchangeable_outputs: ClassVar[bool] = False
    """True where the meaning of the outputs is arbitrary (class labels): observations then pool over them."""
    varying_shots: ClassVar[bool] = False
    """True where `shots` may be (low, high): this class and its bases weigh points by WEIGHTS wherever it matters. A
    subclass that overrides one of WEIGHING says so itself."""
    cap: ClassVar[float] = 1e4
    """A step that takes the support loss above this is refused; query losses above it count as much as it does."""

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
        kinds = type(self).__mro__
        declared = next(place for place, kind in enumerate(kinds) if "varying_shots" in vars(kind))
        unsure = [name for kind in kinds[:declared] for name in WEIGHING if name in vars(kind)]
        if not self.varying_shots or unsure:
            why = f" (its own {', '.join(unsure)} may count all points alike)" if self.varying_shots else ""
            raise ValueError(f"shots={self.shots!r}: {self.name!r} takes one number for all tasks{why}")
        return int(self.shots[0]), int(self.shots[1])

    @property
    def most_shots(self) -> int:
        """The most support points that a task has (per class where there are classes)."""
        return self.shots if isinstance(self.shots, int) else self.shots[1]

    @property
    def shots_in_words(self) -> str:
        """Such as "1 shot", or "3 to 10 shots"."""
        if isinstance(self.shots, int):
            return f"{self.shots} shot{'s' if self.shots > 1 else ''}"
        return f"{self.shots[0]} to {self.shots[1]} shots"

    def draw_counts(self, generators: Generators) -> NDArray[np.int64] | None:
        """How many of the points of `most_shots` count in each row, (n,); None where all do. Draws only then."""
        if isinstance(self.shots, int):
            return None
        low, high = self.shots
        return np.array([generator.integers(low, high + 1) for generator in generators])

    def replace(self, **changes: Any) -> Self:
        """The same family with other arguments, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)

    @property
    def task_count(self) -> int | None:
        """How many tasks the split holds; None where they never run out."""
        return None

    @property
    @abstractmethod
    def in_features(self) -> int:
        """Inputs of the networks."""

    @property
    @abstractmethod
    def out_features(self) -> int:
        """Outputs of the networks."""

    @property
    def constant_outputs(self) -> int:
        """How many outputs, the last ones, do not depend on the inputs (log deviations of Gaussian policies)."""
        return 0

    @abstractmethod
    def draw(self, generators: Generators) -> Tasks:
        """Draws one task per generator."""

    @abstractmethod
    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """The points the networks train on, as CPU tensors."""

    @abstractmethod
    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """The held-out points the networks are judged on, as CPU tensors."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Loss of each row, (n,): pure and differentiable in `outputs` (n, points, out_features)."""

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Derivative of each row's loss by its outputs, (n, points, out_features).

        Differentiable itself. Override it with a closed form where there is one: stepping then needs no autograd, which
        is off when it calls this.
        """
        differentiable = torch.is_grad_enabled() and outputs.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            if not outputs.requires_grad:
                # What was computed in inference mode, as when environments step, is for autograd only as a copy.
                outputs = (outputs.clone() if outputs.is_inference() else outputs.detach()).requires_grad_()
            total = self.loss(outputs, batch).sum()
            return torch.autograd.grad(total, outputs, create_graph=differentiable)[0]

    def score(self, loss: Tensor) -> Tensor:
        """The scale on which rewards measure losses, elementwise: log1p, for losses that are never negative."""
        return torch.log1p(loss)

    @abstractmethod
    def metrics(self, outputs: Tensor, batch: Batch, loss: Tensor) -> dict[str, Tensor]:
        """What the field reports for this family (mse, accuracy, return), each (n,); `loss` is known already."""

    @property
    def signal_size(self) -> int:
        """Length of `support_signal`."""
        return 0

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        """What an agent may see of the support set, (n, signal_size): never task parameters, never query data.

        Must not depend on the number of points or on their order.
        """
        return outputs.new_zeros(len(outputs), 0)

    def curve(self, tasks: Tasks, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """For pictures: grid and true function of a row's task, where tasks are scalar functions; else None."""
        return None

    def paths(self, tasks: Tasks, batch: Batch, row: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """For pictures: ways (m, steps + 1, 2) of a row's batch, NaN after their ends, and their goal (2,); else None.

        For policies that move on a plane.
        """
        return None

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """For pictures: (height, width) where inputs are images; else None."""
        return None

    def describe(self, tasks: Tasks, row: int) -> dict[str, Any]:
        """The task of one row in words and numbers, for people; agents never see it."""
        return {"family": self.name} | {name: values[row].tolist() for name, values in tasks.items()}

    def task_parameters(self, tasks: Tasks) -> Tasks:
        """What tells tasks apart, in numbers, each (n, ...): `info["task"]`, and what `read_task` takes.

        All numbers that a task holds, unless a family says otherwise: which points were picked is no part of a task.
        """
        return {name: values for name, values in tasks.items() if values.dtype.kind in NUMBERS}

    def read_task(self, given: Any, rows: NDArray[np.int64], count: int) -> Tasks:
        """The tasks that a user asks for, in the form of `task_parameters`.

        Args:
            given: parameters by name, each one task's or, (count, ...), those of all rows.
            rows: whose tasks are wanted.
            count: how many rows there are.

        Returns:
            The parameters, each (len(rows), ...).

        Raises:
            ValueError: other names, shapes or types, numbers that are not finite, or a task that does not exist.
        """
        # A task nobody uses gives names, shapes and types.
        like = self.task_parameters(self.draw([np.random.default_rng(0)]))
        parameters = read_parameters(given, like, rows=rows, count=count)
        self.check_parameters(parameters)
        return parameters

    def check_parameters(self, parameters: Tasks) -> None:
        """Raises a ValueError where numbers of the right shape are no task, such as a place in a list that ends."""

    def draw_given(self, parameters: Tasks, generators: Generators) -> Tasks:
        """Tasks with these parameters, one per generator; what else there is to a task is drawn."""
        return self.draw(generators) | parameters


WEIGHING = ("loss", "output_gradient", "metrics", "support", "support_signal")
"""Methods that have to know what points weigh where K varies."""


def counted(places: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], Tensor]:
    """What fills up tasks with fewer points: the first ones again, which pictures then show and nothing weighs.

    Args:
        places: (points,) numbers from 0, which of its class's, or of all points, each point is.
        counts: (n,) how many of them count.

    Returns:
        Which place to take for each, (n, points), and WEIGHTS, (n, points).
    """
    weights = (places < counts[:, None]).astype(np.float32)
    return places % counts[:, None], torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))


def uniforms(generators: Generators, count: int) -> NDArray[np.float64]:
    """`count` uniform numbers in [0, 1) of each generator, (n, count)."""
    numbers = np.empty((len(generators), count))
    for row, generator in zip(numbers, generators, strict=True):
        generator.random(out=row)
    return numbers


def pick(generator: np.random.Generator, count: int) -> int:
    """Which of `count` tasks a generator draws: any, or the one that a `NumberedGenerator` means."""
    # Drawn in either case: what the generator gives next must not depend on it.
    drawn = int(generator.integers(count))
    return generator.number % count if isinstance(generator, NumberedGenerator) else drawn
