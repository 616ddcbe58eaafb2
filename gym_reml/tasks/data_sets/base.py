"""The interface of distributions of data sets: each task is one data set, with how a network is trained on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import NUMBERS, check_integer

Task = dict[str, Any]
"""The numbers of one task by name."""


@dataclass(frozen=True)
class Examples:
    """Inputs and what a network should answer.

    Attributes:
        inputs: (N, *input_shape) float32.
        targets: (N,) int64 for classification, or (N, outputs) float32 for regression.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def at(self, index: Any) -> Examples:
        """The examples at these places."""
        return Examples(self.inputs[index], self.targets[index])


@dataclass(frozen=True)
class DataSet:
    """A data set in its parts, and the size of the minibatches it is trained on by.

    Attributes:
        train: what the network is trained on.
        validation: what decisions are rewarded on.
        test: for evaluation only; None if there is none.
        batch_size: examples of a minibatch.
        outputs: classes, or numbers that are predicted.

    Raises:
        ValueError: parts of different shapes, labels that are no classes, or a batch size that is not positive.
    """

    train: Examples
    validation: Examples
    test: Examples | None
    batch_size: int
    outputs: int

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size)
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part is None:
                continue
            for kind in ("inputs", "targets"):
                mine, theirs = getattr(part, kind), getattr(self.train, kind)
                if mine.shape[1:] != theirs.shape[1:] or mine.dtype != theirs.dtype:
                    raise ValueError(
                        f"{name}: its {kind} are {mine.dtype} of shape {tuple(mine.shape)}, those of train "
                        f"{theirs.dtype} of shape {tuple(theirs.shape)}"
                    )
        if not self.train.targets.is_floating_point():
            for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
                if part is not None and not 0 <= int(part.targets.min()) <= int(part.targets.max()) < self.outputs:
                    raise ValueError(f"{name}: its labels must be from 0 to {self.outputs - 1}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def parts(self) -> dict[str, Examples]:
        """The parts by name."""
        parts = {"train": self.train, "validation": self.validation}
        return parts if self.test is None else parts | {"test": self.test}


class DataSets(ABC):
    """A distribution of data sets.

    A task is a dict of numbers; those that the `module` of an environment takes as arguments, such as `width`, shape
    the network. Everything is drawn from the given generator only.

    Attributes:
        name: of the distribution.
        split: of the tasks, "train", "validation" or "test". Tasks of different splits are drawn from different random
            streams; distributions over finitely many examples should also draw them from different ones.
        unseen: number of classes that are not trained on, and that alone are in validation and test; 0 where all parts
            have the same classes. Metrics of predicted classes have no meaning then, and are refused.
    """

    name: str = "data sets"
    split: str = "train"
    unseen: int = 0

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> Task:
        """The numbers of a new task, with the same names and types in each."""

    @abstractmethod
    def data(self, task: Task, generator: np.random.Generator) -> DataSet:
        """The data set of a task; newly drawn, where data are random."""

    def check(self, task: Mapping[str, NDArray[Any]]) -> None:  # noqa: B027  (optional)
        """Raises a ValueError for numbers (k, ...) of k tasks, finite and of the right type, that make no tasks."""


def read_examples(argument: str, value: Any) -> Examples:
    """A user's examples.

    Args:
        argument: what errors call them.
        value: a pair (inputs, targets) of arrays or tensors, or a `torch.utils.data.Dataset` with a length, whose items
            are such pairs. Integer targets are classes; others are numbers to predict, (N,) or (N, outputs).

    Raises:
        ValueError: anything else, no examples, or inputs or targets that are not finite numbers.
    """
    if isinstance(value, torch.utils.data.Dataset):
        try:
            items = [value[index] for index in range(len(value))]  # type: ignore[arg-type]
            pair = [np.stack([np.asarray(item[side]) for item in items]) for side in (0, 1)]
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{argument}={value!r}: must have a length, and pairs of an input and a target as items ({error})"
            ) from error
    elif isinstance(value, tuple | list) and len(value) == 2:
        pair = [np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part) for part in value]
    else:
        raise ValueError(
            f"{argument}={type(value).__name__}: must be a pair (inputs, targets) of arrays, or a "
            "torch.utils.data.Dataset"
        )
    inputs, targets = pair
    for name, array in zip(("inputs", "targets"), pair, strict=True):
        if array.dtype.kind not in NUMBERS or not array.ndim or not np.isfinite(array).all():
            raise ValueError(f"{argument}: its {name} must be an array of finite numbers")
    if len(inputs) != len(targets) or not len(inputs):
        raise ValueError(f"{argument}: has {len(inputs)} inputs and {len(targets)} targets; must be as many, and some")
    if inputs.ndim == 1:
        inputs = inputs[:, None]
    if targets.dtype.kind in "biu":
        if targets.ndim != 1:
            raise ValueError(f"{argument}: has labels of shape {targets.shape}; must be one integer for each input")
        return Examples(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets.astype(np.int64)))
    targets = targets[:, None] if targets.ndim == 1 else targets
    return Examples(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets.astype(np.float32)))


class GivenData(DataSets):
    """One data set, the same in every episode; there is nothing to draw."""

    name = "given data"

    def __init__(self, data: DataSet) -> None:
        """Takes the data set."""
        self.given = data

    def draw(self, generator: np.random.Generator) -> Task:
        return {}

    def data(self, task: Task, generator: np.random.Generator) -> DataSet:
        return self.given


def given_data(train: Any, validation: Any, test: Any = None, *, batch_size: int = 32) -> GivenData:
    """A user's data as a distribution of one data set.

    Args:
        train, validation, test: see `read_examples`; test may be None.
        batch_size: examples of a minibatch.

    Raises:
        ValueError: no validation data, or invalid data; the message names the argument.
    """
    if validation is None:
        raise ValueError("validation=None: must be given with train, because rewards are measured on it")
    parts = {"train": train, "validation": validation, "test": test}
    read = {name: read_examples(name, value) for name, value in parts.items() if value is not None}
    targets = [part.targets for part in read.values()]
    if targets[0].is_floating_point():
        outputs = targets[0].shape[1]
    else:
        outputs = 1 + max(int(labels.max()) for labels in targets)
    return GivenData(DataSet(read["train"], read["validation"], read.get("test"), batch_size, outputs))
